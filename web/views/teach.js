/** The view Teach: classes of photos, what is learned from them, and what to do with that. */

import { filesIn } from "../dropping.js";
import { current } from "../state.js";
import { addClass, addPhotos, nameClass, refresh, reset } from "../teaching.js";
import { tryPhotos } from "../teaching_model.js";
import { change, classByName, state } from "../teaching_state.js";
import { text } from "../text.js";
import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { classList } from "./teach_classes.js";
import { keepPanel } from "./teach_keep.js";
import { checks, learnPanel } from "./teach_learn.js";
import { tryPanel } from "./teach_try.js";

void refresh();
for (const type of ["dragover", "dragleave", "drop"]) {
  window.addEventListener(type, (event) => follow(/** @type {DragEvent} */ (event)), { capture: true });
}
window.addEventListener("paste", paste, { capture: true });

export function teach() {
  const { isLoaded, learned } = state();
  if (!isLoaded)
    return html`${notices()}
      <p role="status">${text.teach.opening}</p>`;
  return html`
    <p class="teach-lead">${text.teach.lead}</p>
    ${notices()}
    <div class="teach">
      <section class="teach-column" aria-labelledby="teach-photos">
        <h2 id="teach-photos" class="unseen">${text.teach.stepPhotos}</h2>
        ${classList()}
        <div class="row apart">
          <button class="button" @click=${addAnother}>${text.teach.addClass}</button>
          ${startOver()}
        </div>
      </section>
      <div class="teach-column ${learned ? "" : "short"}">
        ${learnPanel()} ${learned ? html`${tryPanel(learned)} ${checks(learned)} ${keepPanel(learned)}` : nothing}
      </div>
    </div>
  `;
}

/** What keeps the page from working, if anything does. */
function notices() {
  const { isGone, isBusy, problems } = state();
  if (isGone) return notice(text.teach.gone);
  if (isBusy) return notice(text.teach.inUse);
  return problems.load ? notice(text.sentence(problems.load)) : nothing;
}

/** @param {string} sentence */
function notice(sentence) {
  return html`<p class="teach-notice teach-status" role="alert">${sentence}</p>`;
}

function startOver() {
  const { asksReset, classes } = state();
  if (!classes.some(({ isSaved }) => isSaved)) return nothing;
  if (!asksReset) {
    return html`<button class="button quiet" @click=${() => change({ asksReset: true })}>${text.teach.reset}</button>`;
  }
  return html`
    <div class="row teach-ask" role="group" aria-label=${text.teach.resetAsk}>
      <span>${text.teach.resetAsk}</span>
      <button class="button" @click=${reset}>${text.teach.resetYes}</button>
      <button class="button quiet" @click=${() => change({ asksReset: false })}>${text.teach.no}</button>
    </div>
  `;
}

function addAnother() {
  const key = addClass();
  // The field is drawn after this.
  setTimeout(() => document.getElementById(`teach-name-${key}`)?.focus());
}

/** Take files that are dragged over this view or dropped on it, before the page classifies them. @param {DragEvent} event */
function follow(event) {
  if (current().view !== "teach" || !event.dataTransfer?.types.includes("Files")) return;
  event.stopPropagation();
  event.preventDefault();
  const isOut = event.type === "drop" || (event.type === "dragleave" && event.relatedTarget === null);
  const over = isOut ? null : placeOf(event.target);
  if (over !== state().over) change({ over });
  if (event.type === "drop") void drop(event.dataTransfer, placeOf(event.target));
}

/** Return the key of the class, or the place to try, that an element is in. @param {EventTarget | null} target */
function placeOf(target) {
  const place = target instanceof Element ? target.closest("[data-place]") : null;
  const name = place?.getAttribute("data-place");
  return !name ? null : name === "try" ? "try" : Number(name);
}

/**
 * Add dropped photos to the class, or try them. Folders that are dropped beside the classes become classes.
 * @param {DataTransfer} dropped
 * @param {number | "try" | null} place
 */
async function drop(dropped, place) {
  const entries = [...dropped.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  const folders = entries.filter((entry) => entry.isDirectory);
  const loose = [...dropped.files];
  if (place === "try") return tryPhotos(await filesIn(asTransfer(entries, loose)));
  const named = state().classes.find(({ key }) => key === place);
  const isOneClass = named && (folders.length < 2 || named.isSaved) && !(await hasFolders(folders));
  if (isOneClass) {
    if (folders.length === 1 && !named.isSaved) await nameClass(named.key, folders[0].name);
    return addPhotos(named.key, await filesIn(asTransfer(entries, loose)));
  }
  for (const folder of await classFolders(folders)) {
    const key = await classFor(folder.name);
    void addPhotos(key, await filesIn(asTransfer([folder], [])));
  }
  const isLearned = state().learned !== null;
  if (folders.length === 0) isLearned ? await tryPhotos(loose) : change({}, text.teach.dropHint);
}

/** @param {FileSystemEntry[]} entries @param {File[]} files */
function asTransfer(entries, files) {
  const items = entries.map((entry) => ({ webkitGetAsEntry: () => entry }));
  return /** @type {DataTransfer} */ (/** @type {unknown} */ ({ items, files }));
}

/** Return the folders that are classes: those inside a folder that has folders, or else the folder itself. */
/** @param {FileSystemEntry[]} folders @returns {Promise<FileSystemEntry[]>} */
async function classFolders(folders) {
  const found = await Promise.all(
    folders.map(async (folder) => {
      const inside = (await childrenOf(folder)).filter(({ isDirectory, name }) => isDirectory && !name.startsWith("."));
      return inside.length > 0 ? inside : [folder];
    }),
  );
  return found.flat();
}

/** @param {FileSystemEntry[]} folders */
async function hasFolders(folders) {
  return (await classFolders(folders)).length > folders.length;
}

/** @param {FileSystemEntry} folder @returns {Promise<FileSystemEntry[]>} the first hundred */
function childrenOf(folder) {
  const reader = /** @type {FileSystemDirectoryEntry} */ (folder).createReader();
  return new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
}

/** Return the key of the class with this name: a known one, an empty one, or a new one. @param {string} name */
async function classFor(name) {
  const known = classByName(name);
  if (known) return known.key;
  const key = state().classes.find(({ isSaved, adding }) => !isSaved && !adding)?.key ?? addClass();
  await nameClass(key, name);
  return key;
}

/** Add pasted photos to the class that has the focus, or else try them. @param {ClipboardEvent} event */
function paste(event) {
  const files = [...(event.clipboardData?.files ?? [])];
  if (current().view !== "teach" || files.length === 0) return;
  event.stopPropagation();
  event.preventDefault();
  const place = placeOf(document.activeElement);
  if (typeof place === "number") void addPhotos(place, files);
  else if (state().learned) void tryPhotos(files);
}
