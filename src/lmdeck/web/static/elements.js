// Small helpers for elements: creating them, icons, and the clipboard.

const ICONS = {
  attach: "M12 5v14M5 12h14",
  check: "M5 13l4 4L19 7",
  copy: "M9 9h10v10H9zM5 15V5h10",
  delete: "M5 7h14M10 11v6M14 11v6M7 7l1 13h8l1-13M9 7V4h6v3",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  end: "M12 5v14M6 13l6 6 6-6",
  menu: "M4 7h16M4 12h16M4 17h16",
  remove: "M6 6l12 12M18 6L6 18",
  retry: "M20 11a8 8 0 1 0-2.3 5.7M20 5v6h-6",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
};
const SVG = "http://www.w3.org/2000/svg";

export function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

export function iconButton(name, label, action) {
  const button = make("button", "lmdeck-icon");
  button.type = "button";
  button.title = label;
  button.setAttribute("aria-label", label);
  button.append(icon(name));
  button.addEventListener("click", action);
  return button;
}

export function copyButton(label, text) {
  const button = iconButton("copy", label, async () => {
    const isCopied = await copy(text());
    button.replaceChildren(icon(isCopied ? "check" : "remove"));
    button.setAttribute("aria-label", isCopied ? "Copied" : "Copying is not allowed here");
    setTimeout(() => {
      button.replaceChildren(icon("copy"));
      button.setAttribute("aria-label", label);
    }, 1500);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text); // the clipboard needs HTTPS or localhost, and the user's permission
  }
}

function copySelected(text) {
  const field = make("textarea", "lmdeck-hidden");
  field.value = text;
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  return isCopied;
}
