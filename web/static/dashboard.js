// What the pages cannot do without a script, beyond htmx: open parts stay open, and sending a form shows how far it is.
"use strict";

// a part of the page that is replaced keeps what was unfolded, and the keyboard stays where it was in it
document.addEventListener("htmx:beforeSwap", (event) => {
  const open = [...event.detail.target.querySelectorAll("details[open][id]")].map((each) => each.id);
  const focused = document.activeElement.id;
  const mend = () => {
    open.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
    if (focused && document.activeElement === document.body) document.getElementById(focused)?.focus();
  };
  document.addEventListener("htmx:afterSwap", mend, { once: true });
});

// a stream begins with all that it has: what the page shows already stays untouched, and is not read aloud again
document.addEventListener("htmx:sseBeforeMessage", (event) => {
  const brought = document.createElement("template");
  brought.innerHTML = event.detail.data;
  if (brought.innerHTML === event.target.innerHTML.replaceAll(' open=""', "")) event.preventDefault();
});

// a stream that is lost is opened again by itself; until then the page says so
const lost = (hidden) => document.querySelectorAll(".lost").forEach((each) => (each.hidden = hidden));
document.addEventListener("htmx:sseError", () => lost(false));
document.addEventListener("htmx:sseOpen", () => lost(true));

const form = (event) => event.target.closest?.("#job-form");

document.addEventListener("htmx:xhr:progress", (event) => {
  const sent = form(event)?.querySelector("#sent");
  if (sent && event.detail.lengthComputable) {
    sent.hidden = false;
    sent.value = event.detail.loaded / event.detail.total;
  }
});

const tell = (event, words) => {
  const problem = form(event)?.querySelector("#problem");
  if (problem) {
    problem.textContent = words;
    form(event).querySelector("#sent").hidden = true;
  }
};

document.addEventListener("htmx:sendError", (event) => tell(event, "The service did not answer; nothing is lost, try again."));
document.addEventListener("htmx:responseError", (event) => {
  const answer = new DOMParser().parseFromString(event.detail.xhr.responseText, "text/html");
  tell(event, answer.getElementById("detail")?.textContent ?? `The service answered ${event.detail.xhr.status}.`);
});
document.addEventListener("htmx:afterSwap", () => document.getElementById("errors")?.focus());
