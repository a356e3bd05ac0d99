"use strict";
const main = document.querySelector("main");
const connection = document.getElementById("connection");
const events = new EventSource(`/dashboard/events?range=${encodeURIComponent(document.body.dataset.range)}`);

events.onmessage = (event) => {
  const focused = document.activeElement?.id;
  main.innerHTML = JSON.parse(event.data); // HTML of the gateway, which escapes all values
  if (focused) document.getElementById(focused)?.focus();
  connection.textContent = "live";
};
events.onerror = () => { connection.textContent = "the gateway does not answer, trying again …"; };

main.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-post]");
  if (!button) return;
  const headers = { "Content-Type": "application/json" };
  try {
    const answer = await fetch(button.dataset.post, { method: "POST", headers, body: button.dataset.body });
    if (!answer.ok) connection.textContent = (await answer.json()).error.message;
  } catch {
    connection.textContent = "the gateway does not answer";
  }
});
