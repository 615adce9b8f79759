/** Starts the page: draws it after each change of the state, and handles events of the whole page. */

import { filesIn } from "./dropping.js";
import { add } from "./classifying.js";
import { connect } from "./service.js";
import { applyTheme } from "./settings.js";
import { current, onChange, update } from "./state.js";
import { text } from "./text.js";
import { render } from "./vendor/lit-html/lit-html.js";
import { page, viewOf } from "./views/page.js";

let isDrawing = false;

function draw() {
  if (isDrawing) return;
  isDrawing = true;
  queueMicrotask(() => {
    isDrawing = false;
    keepingFocus(() => render(page(current()), document.body));
  });
}

/** If the focused element disappears, focus its nearest remaining ancestor. @param {() => void} change */
function keepingFocus(change) {
  const around = [];
  for (let element = document.activeElement; element; element = element.parentElement) around.push(element);
  change();
  if (around[0]?.isConnected) return;
  const nearest = around.find((element) => element.isConnected && element.matches("[tabindex]:not([hidden])"));
  /** @type {HTMLElement | undefined} */ (nearest)?.focus();
}

function follow() {
  const view = viewOf(location.hash);
  const isAnother = view !== current().view;
  update({ view });
  document.title = `${text.titles[view]} · litelens`;
  // For screen readers, a new view is a new page.
  if (isAnother) queueMicrotask(() => document.querySelector("h1")?.focus());
}

/** @param {readonly File[]} files */
function take(files) {
  if (files.length === 0) return;
  if (current().view !== "classify") location.hash = "";
  add(files);
}

/** @param {DragEvent} event */
function carriesFiles(event) {
  return event.dataTransfer?.types.includes("Files") ?? false;
}

/** Text is pasted into a field, even if the clipboard also has a picture. @param {ClipboardEvent} event */
function goesIntoField({ target, clipboardData }) {
  return target instanceof Element && target.matches(":read-write") && clipboardData?.types.includes("text/plain");
}

document.addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  if (!current().isDraggedOver) update({ isDraggedOver: true });
});
document.addEventListener("dragleave", (event) => {
  // The pointer left the window, not only an element.
  if (event.relatedTarget === null) update({ isDraggedOver: false });
});
document.addEventListener("drop", async (event) => {
  if (!carriesFiles(event) || !event.dataTransfer) return;
  event.preventDefault();
  update({ isDraggedOver: false });
  take(await filesIn(event.dataTransfer));
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length === 0 || goesIntoField(event)) return;
  event.preventDefault();
  take(files);
});
window.addEventListener("hashchange", follow);

document.documentElement.lang = text.language;
applyTheme();
onChange(draw);
follow();
void connect();
