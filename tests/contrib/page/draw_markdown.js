// Draws Markdown as the page does, in pieces, and returns what is seen beside what the reference renderer has.
async (inputs) => {
  const { GrowingMarkdown } = await import("/chat/static/markdown.js");
  const inert = { target: 1, rel: 1, tabindex: 1 };
  const tree = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return [node.data];
    if (node.nodeType !== Node.ELEMENT_NODE) return [];
    if (node.classList.contains("lmdeck-code")) return tree(node.querySelector("pre"));
    if (node.tagName === "CODE") return [{ code: node.className, text: node.textContent.replace(/\n$/, "") }];
    const attributes = [...node.attributes].filter(({ name }) => !(name in inert)).map(({ name, value }) =>
      name === "style" ? `align=${node.style.textAlign}` : `${name}=${value}`);
    return [{ name: node.tagName, attributes: attributes.sort(), children: joined([...node.childNodes].flatMap(tree)) }];
  };
  const joined = (children) => {
    const made = [];
    for (const child of children) {
      if (typeof child === "string" && typeof made.at(-1) === "string") made[made.length - 1] += child;
      else made.push(child);
    }
    return made.map((child) => (typeof child === "string" ? child.trim() : child)).filter((child) => child !== "");
  };
  const seen = (place) => JSON.stringify(joined([...place.childNodes].flatMap(tree)));
  const drawn = [];
  for (const { text, pieces, reference } of inputs) {
    const place = document.querySelector(".lmdeck-log").appendChild(document.createElement("div"));
    place.className = "lmdeck-text";
    let drawnSoFar;
    const markdown = new GrowingMarkdown(place, () => drawnSoFar?.());
    let at = 0;
    for (const size of [...pieces, text.length]) {
      const next = new Promise((resolve) => { drawnSoFar = () => { if (markdown.isDrawn) resolve(); }; });
      if (at < text.length) { markdown.add(text.slice(at, at + size)); await next; }
      at += size;
    }
    const last = new Promise((resolve) => { drawnSoFar = () => { if (markdown.isDrawn) resolve(); }; });
    markdown.end();
    await last;
    await new Promise((resolve) => setTimeout(resolve, 0));
    const given = new DOMParser().parseFromString(reference ?? "", "text/html").body;
    drawn.push({
      ours: seen(place), theirs: seen(given), text: place.textContent,
      names: [...place.querySelectorAll("*")].map((element) => element.tagName.toLowerCase()),
      links: [...place.querySelectorAll("[href], [src]")].map((element) => element.getAttribute("href") ?? element.getAttribute("src")),
      attributes: [...new Set([...place.querySelectorAll("*")].flatMap((element) => element.getAttributeNames()))],
    });
    place.remove();
  }
  return drawn;
}
