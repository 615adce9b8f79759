/** Collects photos and learns from them. The server keeps the draft, so that a reload loses nothing. */

import { failure, problemOf } from "./api.js";
import { blobOf, canvasOf, contextOf } from "./images.js";
import { settings } from "./settings.js";
import { update } from "./state.js";
import { call, inTurn, sleep } from "./teaching_server.js";
import { change, changeClass, classByKey, classByName, isSame, photoCount, state } from "./teaching_state.js";
import { text } from "./text.js";

/** @import {Learned, TaughtClass} from "./teaching_state.js" */

export const LEAST_PHOTOS = 2;
export const GOOD_PHOTOS = 10;

/** Pixels of the longer side of stored photos; several times a model's input. */
const PHOTO_SIDE = 1024;
const MOST_BYTES = 400_000;
const JPEG_QUALITY = 0.92;

/** Names that folders cannot have on every system. */
const UNUSABLE_NAME = /^\.|[\\/:*?"<>|]/;

/** The number of photos of a class that are prepared at the same time. */
const WORKERS = 3;

let lastKey = 0;

/** @type {Promise<void> | null} */
let refreshing = null;
let isStale = false;

/** Classes that are being saved, by key. @type {Map<number, Promise<void>>} */
const saving = new Map();

/** @param {string} name @param {string} [photo] the id of one of its photos */
function pathOf(name, photo) {
  const path = `/classes/${encodeURIComponent(name)}`;
  return photo === undefined ? path : `${path}/photos/${photo}`;
}

/** Fetch the draft. @returns {Promise<void>} */
export function refresh() {
  isStale = true;
  refreshing ??= fetchDraft().finally(() => (refreshing = null));
  return refreshing;
}

async function fetchDraft() {
  while (isStale) {
    isStale = false;
    try {
      await inTurn(async () => merge(await (await call("GET", "")).json()));
    } catch (error) {
      change({ isLoaded: true, problems: { ...state().problems, load: problemOf(error) } });
    }
  }
}

/** @param {{classes: {name: string, photos: string[]}[], learned?: Learned, outdated?: boolean, learning?: boolean}} draft */
function merge(draft) {
  const found = new Map(draft.classes.map(({ name, photos }) => [name, photos]));
  const kept = state()
    .classes.filter(({ key, isSaved, name }) => !isSaved || found.has(name) || saving.has(key))
    .map((each) => ({ ...each, photos: (each.isSaved && found.get(each.name)) || each.photos }));
  const known = new Set(kept.map(({ name }) => name));
  const others = draft.classes.filter(({ name }) => !known.has(name)).map(({ name, photos }) => newClass(name, photos));
  const classes = [...kept, ...others];
  while (classes.length < 2) classes.push(newClass());
  const { learned = null, outdated: isOutdated = false } = draft;
  const problems = { ...state().problems, load: undefined };
  change({ isLoaded: true, classes, learned, isOutdated, problems });
  if (draft.learning && !state().isLearning) void followLearning();
}

/** @param {string} [name] of a class of the draft @param {string[]} [photos] @returns {TaughtClass} */
function newClass(name = "", photos = []) {
  const shown = { typed: null, refused: [], nameProblem: null, showsAll: false, asksRemoval: false };
  return { key: ++lastKey, name, isSaved: name !== "", photos, adding: null, ...shown };
}

// Classes

export function addClass() {
  const added = newClass();
  change({ classes: [...state().classes, added] });
  return added.key;
}

/** Save a name that was typed. @param {number} key @param {string} typed */
export async function nameClass(key, typed) {
  const name = typed.trim().replace(/\s+/g, " ");
  const named = classByKey(key);
  if (!named || name === "" || name === named.name) return changeClass(key, { typed: null, nameProblem: null });
  const before = named.name;
  try {
    if (UNUSABLE_NAME.test(name)) throw failure("draft_name_unusable");
    if (state().classes.some((each) => each.key !== key && isSame(each.name, name))) {
      throw failure("draft_name_taken");
    }
    await inTurn(() => (named.isSaved ? call("PATCH", pathOf(before), { name }) : call("PUT", pathOf(name))));
    changeClass(key, { name, typed: null, isSaved: true, nameProblem: null });
    void refresh();
  } catch (error) {
    changeClass(key, { typed: name, nameProblem: problemOf(error) });
  }
}

/** Save a class that has no name yet, under a name that is free. @param {number} key @returns {Promise<void>} */
function saved(key) {
  if (classByKey(key)?.isSaved) return saving.get(key) ?? Promise.resolve();
  let number = 1;
  while (state().classes.some(({ name }) => isSame(name, text.teach.className(number)))) number++;
  const name = text.teach.className(number);
  changeClass(key, { name, isSaved: true });
  const done = inTurn(() => call("PUT", pathOf(name)))
    .then(() => undefined)
    .finally(() => saving.delete(key));
  saving.set(key, done);
  return done;
}

/** @param {number} key */
export async function removeClass(key) {
  const { name, isSaved } = classByKey(key) ?? newClass();
  if (isSaved) await attempt(() => call("DELETE", pathOf(name)));
  change({ classes: state().classes.filter((each) => each.key !== key) }, text.teach.announceRemoved(name));
  await refresh();
}

/** Remove everything from the draft. */
export async function reset() {
  await attempt(() => call("DELETE", ""));
  forgetTrials();
  change({ classes: [], accepted: [], modelName: null, kept: null, removed: null, asksReset: false });
  await refresh();
}

/** Make a change of the draft that shows its own result, and fetch the draft. @param {() => Promise<unknown>} work */
async function attempt(work) {
  try {
    await inTurn(work);
  } catch (error) {
    // Another tab made the same change.
    if (problemOf(error).code !== "draft_not_found") {
      change({ problems: { ...state().problems, load: problemOf(error) } });
    }
  }
}

// Photos

/**
 * The address of a photo. With a key, browsers must fetch it with a header, which an <img> does not send.
 * @param {string} name of its class
 * @param {string} photo
 */
export function photoUrl(name, photo) {
  if (!settings().key) return `/v1/draft${pathOf(name, photo)}`;
  const known = fetched.get(photo);
  if (known === undefined) {
    fetched.set(photo, "");
    void call("GET", pathOf(name, photo))
      .then(async (response) => fetched.set(photo, URL.createObjectURL(await response.blob())))
      .then(() => update({}), console.error);
  }
  return known ?? "";
}

/** Addresses of photos that were fetched, by id. @type {Map<string, string>} */
const fetched = new Map();

/** @param {number} key @param {readonly Blob[]} files */
export async function addPhotos(key, files) {
  if (files.length === 0) return;
  count(key, 0, files.length);
  const waiting = [...files];
  await saved(key).catch(() => undefined);
  const work = async () => {
    for (let file = waiting.shift(); file; file = waiting.shift()) await addPhoto(key, file);
  };
  await Promise.all(Array.from({ length: WORKERS }, work));
  const { name = "", photos = [] } = classByKey(key) ?? {};
  change({}, text.teach.announceAdded(name, photos.length));
  await refresh();
}

/** @param {number} key @param {Blob} file */
async function addPhoto(key, file) {
  try {
    const photo = await stored(file);
    const { id } = await inTurn(async () => {
      const { name } = classByKey(key) ?? newClass();
      return (await call("POST", `${pathOf(name)}/photos`, photo)).json();
    });
    changeClass(key, { photos: [...new Set([...(classByKey(key)?.photos ?? []), id])] });
  } catch (error) {
    const refused = { file: file instanceof File ? file.name : "", problem: problemOf(error) };
    changeClass(key, { refused: [...(classByKey(key)?.refused ?? []), refused] });
  }
  count(key, 1, 0);
}

/** @param {number} key @param {number} done @param {number} more */
function count(key, done, more) {
  const { done: before, total } = classByKey(key)?.adding ?? { done: 0, total: 0 };
  const adding = { done: before + done, total: total + more };
  changeClass(key, { adding: adding.done === adding.total ? null : adding });
}

/**
 * Return a photo as it is stored: a large one smaller, upright, and without its metadata.
 * @param {Blob} file
 * @returns {Promise<Blob>}
 */
export async function stored(file) {
  if (file.size === 0) throw failure("image_missing");
  // A type is known by the file's name; without one, the server looks at the content.
  if (file.type && !file.type.startsWith("image/")) throw failure("not_an_image");
  if (file.size <= MOST_BYTES) return file;
  const bitmap = await createImageBitmap(file).catch(() => null);
  // The server may read what the browser cannot draw.
  return bitmap ? drawn(bitmap, bitmap.width, bitmap.height) : file;
}

/** @param {ImageBitmap | HTMLVideoElement} source @param {number} width @param {number} height @returns {Promise<Blob>} */
export function drawn(source, width, height, side = PHOTO_SIDE) {
  const scale = Math.min(1, side / Math.max(width, height));
  const canvas = canvasOf(Math.max(1, width * scale), Math.max(1, height * scale));
  const context = contextOf(canvas);
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return blobOf(canvas, "image/jpeg", JPEG_QUALITY);
}

/** Remove a photo; undoRemoval() brings it back. @param {string} name of its class @param {string} photo */
export async function removePhoto(name, photo) {
  const from = classByName(name);
  if (!from) return;
  changeClass(from.key, { photos: from.photos.filter((each) => each !== photo) });
  await attempt(async () => {
    const content = await (await call("GET", pathOf(name, photo))).blob();
    await call("DELETE", pathOf(name, photo));
    change({ removed: { key: from.key, photo: content } }, text.teach.announcePhotoRemoved(name));
  });
  await refresh();
}

export async function undoRemoval() {
  const { removed } = state();
  change({ removed: null });
  if (removed) await addPhotos(removed.key, [removed.photo]);
}

/** @param {string} name of its class @param {string} photo @param {string} other the class to move it to */
export async function movePhoto(name, photo, other) {
  await attempt(() => call("PATCH", pathOf(name, photo), { class: other }));
  change({}, text.teach.announceMoved(other));
  await refresh();
}

// Learning

export async function learn() {
  const { load } = state().problems;
  change({ isLearning: true, problems: { load }, kept: null, removed: null }, text.teach.learning(photoCount()));
  const stop = countSeconds();
  showProgress().catch(console.error);
  try {
    await inTurn(() => call("POST", "/learn"));
    forgetTrials();
    change({ accepted: [] });
    await refresh();
    change({ isLearning: false }, text.teach.announceLearned);
    // It is drawn after this.
    setTimeout(showResult);
  } catch (error) {
    change({ isLearning: false, problems: { learn: problemOf(error) } });
    await refresh();
  } finally {
    stop();
  }
}

/** Focus the result, in the place where it can be seen with what follows it. */
function showResult() {
  const result = document.getElementById("teach-result");
  const { top = 0, bottom = 0 } = result?.getBoundingClientRect() ?? {};
  result?.focus({ preventScroll: true });
  if (top < 80 || bottom > innerHeight / 2) result?.scrollIntoView({ block: "start" });
}

/** Wait until another tab, or this one before a reload, has learned. */
async function followLearning() {
  change({ isLearning: true });
  const stop = countSeconds();
  while (await isStillLearning());
  stop();
  change({ isLearning: false });
  await refresh();
}

async function showProgress() {
  while (state().isLearning) await isStillLearning();
}

/** Wait a second, and show how many photos were read. @returns {Promise<boolean>} whether learning goes on */
async function isStillLearning() {
  await sleep(1);
  const { learning = false, progress = null } = await (await call("GET", "")).json();
  change({ progress });
  return learning;
}

/** Count the seconds of learning. @returns {() => void} ends it */
function countSeconds() {
  change({ seconds: 0, progress: null });
  const timer = setInterval(() => change({ seconds: state().seconds + 1 }), 1000);
  return () => clearInterval(timer);
}

function forgetTrials() {
  for (const { url } of state().trials) URL.revokeObjectURL(url);
  change({ trials: [] });
}
