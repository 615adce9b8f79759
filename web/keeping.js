/** Keeps photos and their answers in this browser, so that they survive a reload. */

import { restore } from "./classifying.js";
import { isUnderWay } from "./results.js";
import { settings } from "./settings.js";
import { current, onChange, photoById, update } from "./state.js";

/** @import {Photo, Progress, Conversation} from "./state.js" */

/** The limits of what is kept: the first photos that are within both. */
export const MAX_PHOTOS = 200;
export const MAX_BYTES = 200_000_000;

/** Milliseconds between changes and their storage, so that a row of changes is stored once. */
const DELAY_MS = 200;

const STORE = "photos";

/**
 * A photo as it is kept. An unsettled one has no progress. `endpoint` and `model` are those of its answer.
 * @typedef {{
 *   id: number,
 *   file: File,
 *   progress: Progress | null,
 *   isCompared: boolean,
 *   isConverted: boolean,
 *   conversation: Conversation,
 *   endpoint: string,
 *   model: string,
 * }} Kept
 */

/** The photos as they were stored last, by id; null for one that is to be deleted. @type {Map<number, Photo | null>} */
const stored = new Map();

/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** The last write; one follows the other. @type {Promise<unknown>} */
let writing = Promise.resolve();

/**
 * Bring back the photos of earlier, and keep those of the future. Without a database, the page works and forgets.
 * @returns {Promise<void>}
 */
export async function keepPhotos() {
  const database = await open().catch(() => null);
  if (!database) return;
  const { endpoint, model } = settings();
  /** @type {Kept[]} */
  const kept = await done(database.transaction(STORE).objectStore(STORE).getAll());
  // Photos of another endpoint are forgotten: nobody asked to send them to this one.
  restore(
    kept.filter((photo) => photo.endpoint === endpoint).map((photo) => ({ ...photo, isOld: photo.model !== model })),
  );
  for (const { id } of kept) stored.set(id, photoById(id) ?? null);
  const schedule = () => {
    timer ??= setTimeout(() => {
      timer = undefined;
      writing = writing.then(() => store(database)).catch(() => update({ isKeeping: false }));
    }, DELAY_MS);
  };
  onChange(schedule);
  schedule();
  update({ isKeeping: true });
}

/** Forget the photos and the settings. */
export async function forgetEverything() {
  clearTimeout(timer);
  await writing;
  for (const place of [() => sessionStorage, () => localStorage]) {
    try {
      place().clear();
    } catch {
      // Nothing is stored there.
    }
  }
  const database = await open().catch(() => null);
  if (database) await done(database.transaction(STORE, "readwrite").objectStore(STORE).clear());
  location.replace(location.pathname);
}

/** @returns {Promise<IDBDatabase>} */
async function open() {
  const request = indexedDB.open("litelens", 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
  return done(request);
}

/** Write what has changed. @param {IDBDatabase} database */
async function store(database) {
  const photos = withinLimits(current().photos);
  const ids = new Set(photos.map(({ id }) => id));
  const gone = [...stored.keys()].filter((id) => !ids.has(id));
  const changed = photos.filter((photo) => isChanged(photo, stored.get(photo.id)));
  if (gone.length + changed.length === 0) return;
  const { endpoint, model } = settings();
  const transaction = database.transaction(STORE, "readwrite");
  const all = transaction.objectStore(STORE);
  for (const id of gone) all.delete(id);
  for (const photo of changed) {
    const { id, file, progress, isCompared, isConverted, conversation } = photo;
    const settled = isUnderWay(photo) ? null : progress;
    const turns = { ...conversation, question: null };
    all.put({ id, file, progress: settled, isCompared, isConverted, conversation: turns, endpoint, model });
  }
  await new Promise((resolve, reject) => {
    transaction.oncomplete = resolve;
    transaction.onabort = reject;
  });
  for (const id of gone) stored.delete(id);
  for (const photo of changed) stored.set(photo.id, photo);
}

/** @param {Photo} photo @param {Photo | null | undefined} before */
function isChanged(photo, before) {
  if (!before) return true;
  if (photo.isCompared !== before.isCompared || photo.conversation !== before.conversation) return true;
  return photo.progress !== before.progress && !(isUnderWay(photo) && isUnderWay(before));
}

/** Return the photos that are kept. @param {readonly Photo[]} photos */
export function withinLimits(photos) {
  let bytes = 0;
  return photos.slice(0, MAX_PHOTOS).filter(({ file }) => (bytes += file.size) <= MAX_BYTES);
}

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
