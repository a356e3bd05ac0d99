// Markdown as elements, drawn while it grows: parsed by markdown-it, built as elements and never as HTML, and checked by DOMPurify.
//
// Blocks that further text cannot change are settled and not parsed again. The others are built anew and compared with what is
// shown, so that only what differs is touched: a selection stays, and the work follows the new text. Each frame has a budget.

import { copyButton, make } from "./elements.js";
import MarkdownIt from "./vendor/markdown-it.js";
import DOMPurify from "./vendor/purify.js";

const FRAME_BUDGET = 8; // milliseconds
const FRAME_CHARACTERS = 3_000;
const REST = 4; // after a draw, this many times its duration is left to the browser
const MOST_HIGHLIGHTED = 12_000; // characters of a block of code
const HIGHLIGHTED_AT_ONCE = 3_000; // while it grows
const MOST_OPEN_CHILDREN = 8; // of a list or table
const CHUNK = 200; // items of a list or rows of a table that are laid out together
const LINES_PIECE = 4_000; // characters of code that are laid out together
const ATTRIBUTES = new Set(["href", "title", "start", "class"]);
const WITHIN_CODE = { RETURN_DOM_FRAGMENT: true, ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"] };

const parser = new MarkdownIt({ html: false, linkify: true });
parser.linkify.set({ fuzzyLink: false, fuzzyEmail: false });

let highlighter; // loaded with the first block of code
const codeBlocks = new WeakMap();

class CodeBlock {
  constructor(language, text) {
    this.language = language;
    this.element = make("div", "lmdeck-code");
    this.pre = make("pre");
    this.code = make("code", language ? `language-${language}` : "");
    const head = make("div", "lmdeck-code-head");
    head.append(make("span", "", language), copyButton("Copy code", () => this.text));
    this.pre.tabIndex = 0;
    this.pre.append(this.code);
    this.element.append(head, this.pre);
    codeBlocks.set(this.element, this);
    this.clear();
    this.append(text);
  }

  clear() {
    this.text = "";
    this.isHighlighted = false;
    this.code.replaceChildren();
    this.piece = null;
  }

  grow(text) {
    if (text === this.text) return;
    if (!text.startsWith(this.text)) this.clear();
    this.append(text.slice(this.text.length));
    if (text.length <= HIGHLIGHTED_AT_ONCE) this.highlight();
  }

  append(text) {
    this.text += text;
    for (let rest = text; rest; ) {
      if (!this.piece) this.code.append((this.piece = this.newPiece()));
      const end = this.piece.textContent.length + rest.length > LINES_PIECE ? rest.indexOf("\n") + 1 : 0;
      this.piece.append(end ? rest.slice(0, end) : rest);
      if (end) this.piece = null;
      rest = end ? rest.slice(end) : "";
    }
  }

  newPiece() {
    const isFirst = !this.code.hasChildNodes();
    return make("span", isFirst ? "" : "lmdeck-lines");
  }

  async highlight() {
    if (!this.language || this.text.length > MOST_HIGHLIGHTED) return;
    highlighter ??= import("./vendor/highlight.js").then((module) => module.default);
    const found = await highlighter;
    if (!found.getLanguage(this.language) || this.shown === this.text) return;
    this.shown = this.text;
    const html = found.highlight(this.text, { language: this.language, ignoreIllegals: true }).value;
    this.code.replaceChildren(DOMPurify.sanitize(html, WITHIN_CODE));
    this.piece = this.code.appendChild(make("span", ""));
  }
}

class Builder {
  // Builds the elements of a list of tokens.
  constructor(tokens) {
    this.root = document.createElement("div");
    this.open = [this.root];
    this.add(tokens);
  }

  get place() {
    return this.open.at(-1);
  }

  add(tokens) {
    for (const token of tokens) {
      if (token.type === "inline") this.add(token.children);
      else if (token.nesting === 1) this.begin(token);
      else if (token.nesting === -1) this.end(token);
      else this.place.append(this.leaf(token));
    }
  }

  begin(token) {
    if (token.hidden) return; // the paragraphs of a tight list
    const element = withAttributes(make(token.tag), token);
    this.place.append(element);
    this.open.push(element);
  }

  end(token) {
    if (!token.hidden) this.open.pop();
  }

  leaf(token) {
    switch (token.type) {
      case "fence":
      case "code_block":
        return new CodeBlock(token.info.trim().split(/\s+/)[0].toLowerCase(), token.content.replace(/\n$/, "")).element;
      case "code_inline":
        return make("code", "", token.content);
      case "hardbreak":
      case "hr":
        return make(token.tag);
      case "softbreak":
        return "\n";
      case "image":
        return image(token);
      default:
        return token.content;
    }
  }
}

function withAttributes(element, token) {
  for (const [name, value] of token.attrs ?? []) {
    if (ATTRIBUTES.has(name)) element.setAttribute(name, value);
    if (name === "style") element.style.textAlign = value.replace("text-align:", ""); // of a table's cell
  }
  return token.tag === "a" ? asLink(element) : element;
}

function asLink(element) {
  element.target = "_blank";
  element.rel = "noopener noreferrer";
  return element;
}

// An image of another site would tell that site what is read here, so it is a link; one in the text itself is shown.
function image(token) {
  const source = token.attrGet("src");
  const name = token.content || source;
  if (!source.startsWith("data:")) {
    const link = asLink(make("a", "lmdeck-image-link", name));
    link.setAttribute("href", source);
    return link;
  }
  const shown = make("img");
  shown.src = source;
  shown.alt = name;
  return shown;
}

function isSame(shown, fresh) {
  if (shown.nodeType !== fresh.nodeType || shown.nodeName !== fresh.nodeName) return false;
  const [code, freshCode] = [codeBlocks.get(shown), codeBlocks.get(fresh)];
  if (code || freshCode) return code?.language === freshCode?.language;
  if (shown.nodeType !== Node.ELEMENT_NODE) return true;
  if (shown.attributes.length !== fresh.attributes.length) return false;
  return [...fresh.attributes].every(({ name, value }) => shown.getAttribute(name) === value);
}

function update(shown, fresh) {
  const code = codeBlocks.get(shown);
  if (code) code.grow(codeBlocks.get(fresh).text);
  else if (shown.nodeType === Node.TEXT_NODE) updateText(shown, fresh.data);
  else updateChildren(shown, fresh);
}

function updateText(shown, text) {
  if (shown.data === text) return;
  if (text.startsWith(shown.data)) shown.appendData(text.slice(shown.data.length));
  else shown.data = text;
}

function updateChildren(shown, fresh) {
  let at = shown.firstChild;
  for (const node of [...fresh.childNodes]) {
    if (at && isSame(at, node)) update(at, node);
    else if (at) at.replaceWith((at = checked(node)));
    else shown.append((at = checked(node)));
    at = at.nextSibling;
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function checked(node) {
  if (node.nodeType !== Node.ELEMENT_NODE) return node;
  codeBlocks.get(node)?.highlight();
  return DOMPurify.sanitize(node, { IN_PLACE: true, ADD_ATTR: ["target"] });
}

class Children {
  // The last children of an element, as far as further text may change them; those before them are settled.
  constructor(place, open = []) {
    this.place = place;
    this.open = open;
  }

  draw(fresh) {
    const drawn = fresh.map((node, index) => this.drawOne(this.open[index], node));
    for (const node of this.open.slice(fresh.length)) node.remove();
    this.open = drawn;
  }

  drawOne(shown, fresh) {
    if (shown && isSame(shown, fresh)) {
      update(shown, fresh);
      return shown;
    }
    const made = checked(fresh);
    if (shown) shown.replaceWith(made);
    else this.place.append(made);
    return made;
  }

  settle(count) {
    for (const node of this.open.splice(0, count)) highlightWithin(node);
  }
}

// A long list or table, whose items or rows settle one by one. A table's rows are parsed with its head before them.
//
// It is divided into chunks, further lists or bodies of the table. A full one has the class `lmdeck-chunk`: the browser lays it
// out and paints it only where it is seen, so that the work of a frame does not grow with the list.
class Container {
  constructor(block, head) {
    const place = placeOfChildren(block);
    this.head = head;
    this.isLoose = false;
    this.children = new Children(place, [...place.childNodes]);
    this.places = [place];
  }

  // A blank line between two items makes paragraphs of the texts of all items.
  loosen(isLoose) {
    if (!isLoose || this.isLoose) return;
    this.isLoose = true;
    const items = this.places.flatMap((place) => [...place.children]);
    for (const item of items) if (!this.children.open.includes(item)) makeParagraphs(item);
  }

  settle(count) {
    this.children.settle(count);
    const { place, open } = this.children;
    const settled = place.childElementCount - open.length;
    if (settled >= CHUNK) this.beginChunk(place, settled);
  }

  beginChunk(place, settled) {
    const next = place.cloneNode(false);
    if (place.tagName === "OL") next.start = place.start + settled;
    else if (place.tagName === "TBODY" && this.places.length === 1) keepColumns(place.parentElement);
    next.append(...this.children.open);
    place.after(next);
    place.classList.add("lmdeck-chunk");
    this.children.place = next;
    this.places.push(next);
  }
}

// Give all rows the columns that the first ones have, as a table with many rows is slow to lay out.
function keepColumns(table) {
  if (!table.offsetWidth) return; // it is not shown
  const widths = [...table.rows[0].cells].map((cell) => `${cell.getBoundingClientRect().width}px`);
  table.style.setProperty("--columns", widths.join(" "));
  table.classList.add("lmdeck-long");
}

function placeOfChildren(block) {
  return block.tagName === "TABLE" ? block.querySelector("tbody") : block;
}

function makeParagraphs(item) {
  let paragraph = null;
  for (const node of [...item.childNodes]) {
    if (/^(?:UL|OL|DIV|P|BLOCKQUOTE|TABLE|HR|H[1-6])$/.test(node.nodeName)) paragraph = null;
    else {
      if (!paragraph) node.before((paragraph = make("p")));
      paragraph.append(node);
    }
  }
}

function highlightWithin(node) {
  if (node.nodeType !== Node.ELEMENT_NODE) return;
  for (const element of [node, ...node.querySelectorAll(".lmdeck-code")]) codeBlocks.get(element)?.highlight();
}

// What the parser found in the text that is not settled: where its blocks begin, and the children of a list or table.
class Tail {
  constructor(text, head, references) {
    this.head = head;
    this.lines = (head + text).split("\n");
    this.tokens = parser.parse(head + text, { references: { ...references } });
    this.blocks = this.starts((token) => token.level === 0);
    const isTable = this.tokens[0]?.type === "table_open";
    const rows = isTable ? this.tokens.findIndex((token) => token.type === "tbody_open") : 0;
    this.children = this.starts((token, index) => index > rows && token.type === (isTable ? "tr_open" : "list_item_open")
      && token.level === (isTable ? 2 : 1) && token.map[0] < (this.blocks[1] ?? Infinity));
    this.isTable = isTable;
  }

  starts(isWanted) {
    return this.tokens.filter((token, index) => token.nesting >= 0 && isWanted(token, index)).map((token) => token.map[0]);
  }

  // The index of the last one that begins on a whole line; the line that is being written may yet belong to the one before it.
  lastSure(starts) {
    return starts.findLastIndex((line) => line < this.lines.length - 1);
  }

  get isLoose() {
    return this.tokens.some((token) => token.type === "paragraph_open" && token.level === 2 && !token.hidden);
  }

  loosen() {
    for (const token of this.tokens) if (token.level === 2 && /^paragraph_/.test(token.type)) token.hidden = false;
  }

  between(from, to) {
    return this.lines.slice(from, to).join("\n");
  }

  // The text of each block or child, given where they begin.
  sources(starts) {
    return starts.map((line, index) => this.between(line, starts[index + 1]));
  }

  upTo(line) {
    return `${this.between(0, line)}\n`.slice(this.head.length);
  }
}

export class GrowingMarkdown {
  constructor(place, onDraw = () => {}) {
    this.blocks = new Children(place);
    this.container = null;
    this.onDraw = onDraw;
    this.text = "";
    this.read = 0; // characters that have been parsed
    this.settled = 0; // characters that are not parsed again
    this.references = {};
    this.withBrackets = []; // settled nodes that a later definition of a link may change
    this.isEnded = false;
    this.notBefore = 0;
  }

  add(text) {
    this.text += text;
    schedule(this);
  }

  end() {
    this.isEnded = true;
    schedule(this);
  }

  get isDrawn() {
    return this.read === this.text.length && (!this.isEnded || this.isFinished);
  }

  step(now) {
    if (now < this.notBefore) return;
    this.read = Math.min(this.text.length, this.read + FRAME_CHARACTERS);
    this.drawTail();
    if (this.isEnded && this.read === this.text.length) this.finish();
    this.onDraw();
    this.notBefore = now + REST * (performance.now() - now);
  }

  drawTail() {
    const tail = new Tail(this.text.slice(this.settled, this.read), this.container?.head ?? "", this.references);
    this.container?.loosen(tail.isLoose);
    if (this.container?.isLoose) tail.loosen();
    const fresh = [...new Builder(tail.tokens).root.childNodes];
    if (this.container) this.container.children.draw([...placeOfChildren(fresh.shift()).childNodes]);
    this.blocks.draw(fresh);
    const last = tail.lastSure(tail.blocks);
    if (last > 0) this.settleBlocks(tail, last);
    else if (last === 0) this.settleChildren(tail);
  }

  settleBlocks(tail, count) {
    if (this.container) this.settleContainer(tail, tail.children.length);
    const first = this.container ? 1 : 0;
    this.container = null;
    this.noteBrackets(this.blocks.open, tail.sources(tail.blocks).slice(first, count), (root) => root.firstChild);
    this.blocks.settle(count - first);
    this.settleText(tail.upTo(tail.blocks[count]));
  }

  settleChildren(tail) {
    const count = tail.lastSure(tail.children);
    if (count < MOST_OPEN_CHILDREN) return;
    this.container ??= new Container(this.blocks.open.shift(), tail.isTable ? `${tail.between(0, 2)}\n` : "");
    this.container.isLoose ||= tail.isLoose;
    this.settleContainer(tail, count);
    this.settleText(tail.upTo(tail.children[count]));
  }

  settleContainer(tail, count) {
    const { head, children } = this.container;
    const sources = tail.sources(tail.children).slice(0, count).map((source) => head + source);
    this.noteBrackets(children.open, sources, (root) => placeOfChildren(root.firstChild).firstChild);
    this.container.settle(count);
  }

  settleText(text) {
    if (text.includes("]:")) parser.parse(text, { references: this.references });
    this.settled += text.length;
  }

  noteBrackets(nodes, sources, find) {
    sources.forEach((source, index) => {
      if (source.includes("[")) this.withBrackets.push({ node: nodes[index], source, find });
    });
  }

  finish() {
    this.isFinished = true;
    parser.parse(this.text.slice(this.settled), { references: this.references });
    this.container?.settle(Infinity);
    this.blocks.settle(Infinity);
    if (!Object.keys(this.references).length) return;
    for (const { node, source, find } of this.withBrackets) {
      const fresh = find(new Builder(parser.parse(source, { references: this.references })).root);
      if (fresh && isSame(node, fresh)) update(node, fresh);
    }
  }
}

const waiting = new Set();
let isScheduled = false;

function schedule(markdown) {
  waiting.add(markdown);
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(drawFrame);
}

function drawFrame() {
  isScheduled = false;
  const begin = performance.now();
  for (const markdown of waiting) {
    markdown.step(performance.now());
    if (markdown.isDrawn) waiting.delete(markdown);
    if (performance.now() - begin > FRAME_BUDGET) break;
  }
  if (waiting.size) schedule(waiting.values().next().value);
}
