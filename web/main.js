/** Starts the page: draws it after each change of the state, and handles events of the whole page. */

import { filesIn } from "./dropping.js";
import { add, retryConnection } from "./classifying.js";
import { keepPhotos } from "./keeping.js";
import { workOffline } from "./offline.js";
import { connect, watch } from "./service.js";
import { applyTheme } from "./settings.js";
import { current, onChange, update } from "./state.js";
import { text } from "./text.js";
import { render } from "./vendor/lit-html/lit-html.js";
import { chooseByKey } from "./views/card.js";
import { openDialogs } from "./views/dialogs.js";
import { page, viewOf } from "./views/page.js";

/** The longest time, in milliseconds, that the first drawing waits for the photos of earlier. */
const RESTORE_MS = 400;

let isDrawing = false;

function draw() {
  if (isDrawing) return;
  isDrawing = true;
  queueMicrotask(() => {
    isDrawing = false;
    keepingFocus(() => render(page(current()), document.body));
    openDialogs();
  });
}

/** If the focused element disappears, focus its photo or its nearest remaining ancestor. @param {() => void} change */
function keepingFocus(change) {
  const around = [];
  for (let element = document.activeElement; element; element = element.parentElement) around.push(element);
  change();
  if (around[0]?.isConnected) return;
  const nearest = around.find((element) => element.isConnected && element.matches("[tabindex]:not([hidden])"));
  const name = around.find((element) => element.localName === "article")?.ariaLabel;
  const photo = name ? document.querySelector(`article[aria-label="${CSS.escape(name)}"]`) : null;
  /** @type {HTMLElement | undefined} */ (photo ?? nearest)?.focus();
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
document.addEventListener("keydown", (event) => {
  const { view, photos } = current();
  if (event.target === document.body && view === "classify" && photos.length === 1) chooseByKey(event, photos[0].id);
});
window.addEventListener("hashchange", follow);

document.documentElement.lang = text.language;
applyTheme();
watch(retryConnection);
void connect();
// Drawn with the photos of earlier, unless reading them takes long.
await Promise.race([keepPhotos(), new Promise((resolve) => setTimeout(resolve, RESTORE_MS))]);
onChange(draw);
follow();
void workOffline();
