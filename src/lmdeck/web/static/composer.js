// The field for a question: its height, images, sending, stopping, and editing an earlier question.

import { iconButton, icon, make } from "./elements.js";

const MOST_IMAGES = 4;
const MAX_PIXELS = 1280; // of an image's longer side: vision models scale larger ones down
const MOST_CHARACTERS = 500_000; // of an image as text

export class Composer {
  constructor(root, { onSend, onStop, onNotice, onEditLast }) {
    this.find = (selector) => root.querySelector(selector);
    this.field = this.find("textarea");
    this.form = this.find("main > form");
    this.onNotice = onNotice;
    this.images = [];
    this.editing = null;
    for (const [selector, name] of Object.entries({ attach: "attach", send: "send", stop: "stop" })) {
      this.find(`.lmdeck-${selector}`).append(icon(name));
    }
    this.form.addEventListener("submit", (event) => { event.preventDefault(); onSend(); });
    this.find(".lmdeck-stop").addEventListener("click", onStop);
    this.find(".lmdeck-cancel").addEventListener("click", () => this.clear());
    this.field.addEventListener("input", () => this.fit());
    this.field.addEventListener("keydown", (event) => this.key(event, onEditLast));
    this.listenForImages(root);
    this.field.disabled = false; // from now on nothing that is typed is lost
    this.focus();
  }

  focus() {
    if (!matchMedia("(hover: none)").matches) this.field.focus(); // a phone would open its keyboard
  }

  get question() {
    return { text: this.field.value.trim(), images: [...this.images] };
  }

  key(event, onEditLast) {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.form.requestSubmit();
    } else if (event.key === "ArrowUp" && !this.field.value) {
      event.preventDefault();
      onEditLast();
    } else if (event.key === "Escape" && this.editing) this.clear();
  }

  fill({ text, images }, editing = null) {
    this.field.value = text;
    this.images = [...images];
    this.editing = editing;
    this.find(".lmdeck-editing").hidden = !editing;
    this.showImages();
    this.fit();
    this.field.focus();
    this.field.setSelectionRange(text.length, text.length);
  }

  clear() {
    this.fill({ text: "", images: [] });
  }

  fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight + 2}px`;
  }

  work(isWorking) {
    this.find(".lmdeck-stop").hidden = !isWorking;
    this.find(".lmdeck-send").hidden = isWorking;
    if (!isWorking) this.focus();
  }

  acceptImages(isAccepted) {
    this.find(".lmdeck-attach").hidden = !isAccepted;
    this.isWithoutImages = !isAccepted;
  }

  listenForImages(root) {
    const chooser = this.find(".lmdeck-file");
    this.find(".lmdeck-attach").addEventListener("click", () => chooser.click());
    chooser.addEventListener("change", () => { this.attach(chooser.files); chooser.value = ""; });
    this.field.addEventListener("paste", (event) => this.attach(event.clipboardData.files, event));
    root.addEventListener("dragover", (event) => event.preventDefault());
    root.addEventListener("drop", (event) => this.attach(event.dataTransfer.files, event));
  }

  async attach(files, event) {
    const images = [...files].filter((file) => file.type.startsWith("image/"));
    if (!images.length) return;
    event?.preventDefault();
    if (this.isWithoutImages) return this.onNotice("This model does not accept images.");
    if (this.images.length + images.length > MOST_IMAGES) this.onNotice(`At most ${MOST_IMAGES} images can be sent at once.`);
    for (const file of images.slice(0, MOST_IMAGES - this.images.length)) {
      try {
        this.images.push(await scaledDown(file));
      } catch {
        this.onNotice(`${file.name} cannot be read as an image.`);
      }
    }
    this.showImages();
    this.field.focus();
  }

  showImages() {
    const list = this.find(".lmdeck-images");
    list.hidden = !this.images.length;
    list.replaceChildren(...this.images.map((source, index) => {
      const item = make("li");
      const shown = make("img");
      shown.src = source;
      shown.alt = `Image ${index + 1}`;
      item.append(shown, iconButton("remove", `Remove image ${index + 1}`, () => {
        this.images.splice(index, 1);
        this.showImages();
        this.field.focus();
      }));
      return item;
    }));
  }
}

async function scaledDown(file) {
  const bitmap = await createImageBitmap(file);
  const canvas = document.createElement("canvas");
  for (let longest = MAX_PIXELS; ; longest /= 2) {
    const scale = Math.min(1, longest / Math.max(bitmap.width, bitmap.height));
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    for (const [kind, quality] of [["image/png"], ["image/jpeg", 0.85], ["image/jpeg", 0.6]]) {
      const source = canvas.toDataURL(kind, quality);
      if (source.length <= MOST_CHARACTERS) return source;
    }
  }
}
