// The list of conversations: open, rename and delete them.

import { icon, iconButton, make } from "./elements.js";

export class Sidebar {
  constructor(root, { onOpen, onRename, onRemove }) {
    this.root = root;
    this.find = (selector) => root.querySelector(selector);
    this.actions = { onOpen, onRename, onRemove };
    this.dialog = this.find("dialog");
    this.find(".lmdeck-dismiss").addEventListener("click", () => this.dialog.close());
    this.menu = this.find(".lmdeck-menu");
    this.menu.append(icon("menu"));
    this.menu.addEventListener("click", () => this.show(!this.isShown));
    this.find(".lmdeck-new").addEventListener("click", () => this.open(null));
    this.find("main").addEventListener("click", (event) => {
      if (this.isShown && !this.menu.contains(event.target)) this.show(false);
    });
    root.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.isShown) return;
      this.show(false);
      this.menu.focus();
    });
  }

  get isShown() {
    return this.root.classList.contains("lmdeck-with-menu");
  }

  // On a phone the list lies above the conversation while it is shown.
  show(isShown) {
    this.root.classList.toggle("lmdeck-with-menu", isShown);
    this.menu.setAttribute("aria-expanded", String(isShown));
    if (isShown) this.find(".lmdeck-new").focus();
  }

  open(id) {
    this.show(false);
    this.actions.onOpen(id);
  }

  // Rows that are unchanged stay: a click or the keyboard's focus may be on one of them.
  list(rows, current) {
    const list = this.find("nav ul");
    const shown = JSON.stringify(rows.map(({ id, title }) => [id, title]));
    if (shown !== this.shown) list.replaceChildren(...rows.map((row) => this.item(row)));
    this.shown = shown;
    for (const [index, button] of list.querySelectorAll(".lmdeck-title").entries()) {
      if (rows[index].id === current) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  item({ id, title }) {
    const button = make("button", "lmdeck-title", title);
    button.type = "button";
    button.title = title;
    button.addEventListener("click", () => this.open(id));
    const item = make("li");
    item.append(
      button,
      iconButton("edit", "Rename", () => this.rename(id, title)),
      iconButton("delete", "Delete", () => this.remove(id, title)),
    );
    return item;
  }

  async rename(id, title) {
    const chosen = await this.ask({ question: "Rename the conversation", confirm: "Rename", text: title });
    if (chosen?.trim()) this.actions.onRename(id, chosen.trim());
  }

  async remove(id, title) {
    if ((await this.ask({ question: `Delete “${title}”?`, confirm: "Delete" })) !== null) this.actions.onRemove(id);
  }

  ask({ question, confirm, text }) {
    const field = this.dialog.querySelector("input");
    this.dialog.querySelector("h2").textContent = question;
    this.dialog.querySelector(".lmdeck-confirm").textContent = confirm;
    this.dialog.returnValue = "";
    field.hidden = text === undefined;
    field.value = text ?? "";
    this.dialog.showModal();
    if (text === undefined) this.dialog.querySelector(".lmdeck-confirm").focus();
    else field.select();
    return new Promise((resolve) => {
      const close = () => resolve(this.dialog.returnValue === "yes" ? field.value : null);
      this.dialog.addEventListener("close", close, { once: true });
    });
  }
}
