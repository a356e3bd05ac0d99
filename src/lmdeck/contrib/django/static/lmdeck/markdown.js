// Markdown as elements, never as HTML: whatever a model writes, it stays text.

const INLINE = /(`+)([^`]+?)\1|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)/g;

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

function inline(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    parts.push(text.slice(end, match.index));
    const [, , code, strong, emphasis, label, address] = match;
    if (code !== undefined) parts.push(element("code", code));
    else if (strong !== undefined) parts.push(element("strong", strong));
    else if (emphasis !== undefined) parts.push(element("em", emphasis));
    else {
      const link = element("a", label);
      Object.assign(link, { href: address, rel: "noopener noreferrer nofollow", target: "_blank" });
      parts.push(link);
    }
    end = match.index + match[0].length;
  }
  parts.push(text.slice(end));
  return parts.filter((part) => part !== "");
}

function block(lines) {
  const heading = /^(#{1,6})\s+(.*)$/.exec(lines[0]);
  if (heading && lines.length === 1) return element(`h${Math.min(heading[1].length + 2, 6)}`, ...inline(heading[2]));
  for (const [pattern, name] of [[/^\s*[-*+]\s+/, "ul"], [/^\s*\d+[.)]\s+/, "ol"]]) {
    if (lines.every((line) => pattern.test(line))) {
      return element(name, ...lines.map((line) => element("li", ...inline(line.replace(pattern, "")))));
    }
  }
  return element("p", ...lines.flatMap((line, at) => (at ? [element("br"), ...inline(line)] : inline(line))));
}

export function markdown(text) {
  const made = document.createDocumentFragment();
  let lines = [];
  let fence = null;
  const flush = () => {
    if (lines.length) made.append(block(lines));
    lines = [];
  };
  for (const line of text.split("\n")) {
    if (fence !== null) {
      if (/^\s*```\s*$/.test(line)) {
        made.append(element("pre", element("code", fence.join("\n"))));
        fence = null;
      } else fence.push(line);
    } else if (/^\s*```/.test(line)) {
      flush();
      fence = [];
    } else if (line.trim() === "") flush();
    else lines.push(line);
  }
  if (fence !== null) made.append(element("pre", element("code", fence.join("\n"))));
  flush();
  return made;
}
