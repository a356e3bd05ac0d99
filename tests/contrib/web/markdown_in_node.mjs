// Draws Markdown with elements that remember their children only, and prints what came out, or how long inputs of two sizes took.

class Element {
  constructor(name) {
    this.name = name;
    this.childNodes = [];
  }
  append(...children) {
    for (const child of children) {
      const given = child instanceof Element && child.name === "#fragment" ? child.childNodes.splice(0) : [child];
      for (const one of given) {
        if (one instanceof Element) one.parent = this;
        this.childNodes.push(one);
      }
    }
  }
  remove() {
    this.parent.childNodes.splice(this.parent.childNodes.indexOf(this), 1);
  }
  toJSON() {
    const { name, href, childNodes } = this;
    return href ? { name, href, childNodes } : { name, childNodes };
  }
}
globalThis.document = {
  createElement: (name) => new Element(name),
  createDocumentFragment: () => new Element("#fragment"),
};

const { markdown, GrowingMarkdown } = await import(process.argv[2]);
const input = JSON.parse(await new Response(process.stdin).text());
const drawn = input.map(({ text, repeat = 1, step }) => {
  const whole = text.repeat(repeat);
  const place = new Element("div");
  const began = process.cpuUsage().user;
  if (step) {
    const growing = new GrowingMarkdown(place);
    for (let at = 0; at < whole.length; at += step) {
      growing.add(whole.slice(at, at + step));
      growing.draw();
    }
  } else place.append(markdown(whole));
  const spent = process.cpuUsage().user - began;
  return repeat > 1 ? { spent } : { drawn: place.childNodes };
});
console.log(JSON.stringify(drawn));
