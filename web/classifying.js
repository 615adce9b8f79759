/** Classifies photos. Each photo is independent: it can fail, wait or be cancelled alone. */

import { classify, problemOf, upload } from "./api.js";
import { forUpload, inRequest, orShrunken, previewOf } from "./images.js";
import { run, stop } from "./jobs.js";
import { answerOf, inWords, isUncertain, isUnderWay } from "./results.js";
import { CONNECTION, UNREACHABLE, connected, probe } from "./service.js";
import { settings } from "./settings.js";
import { EVERYTHING, current, leastSure, model, photoById, update, updatePhoto } from "./state.js";
import { text } from "./text.js";

/** @import {Batch} from "./jobs.js" */
/** @import {Photo, Progress, Answer, HeatMapState, Region} from "./state.js" */

/** Requests for heat maps in progress, by the photo's id and the label. @type {Map<string, Promise<void>>} */
const fetching = new Map();

/** @type {Progress} */
const WAITING = { stage: "waiting" };

/** The least number of rows and columns of a heat map that is shown; a coarser one says nothing. */
const LEAST_CELLS = 5;

/** Ids rise, also over reloads, because kept photos keep theirs. */
let lastId = Date.now();

/** The last preview; previews are made one after the other. @type {Promise<unknown>} */
let lastPreview = Promise.resolve();

/** @param {readonly File[]} files */
export function add(files) {
  const photos = files.map(newPhoto);
  forgetRemoved();
  update({ photos: [...current().photos, ...photos], announcement: "" });
  for (const photo of photos) {
    void classifyPhoto(photo);
    void addPreview(photo);
  }
}

/**
 * Add the photos of an earlier visit. Those without an answer, and those with one of another model, are classified.
 * @param {readonly (import("./keeping.js").Kept & {isOld: boolean})[]} kept
 */
export function restore(kept) {
  const photos = kept.map(({ id, file, progress, isCompared, isConverted, conversation, isOld }) => ({
    ...newPhoto(file),
    id,
    isCompared,
    isConverted,
    conversation,
    progress: progress === null || (isOld && progress.stage === "done") ? WAITING : progress,
  }));
  lastId = Math.max(lastId, ...photos.map(({ id }) => id));
  update({ photos: [...photos, ...current().photos] });
  for (const photo of photos) {
    if (photo.progress === WAITING) void classifyPhoto(photo);
    void addPreview(photo);
  }
}

/** @param {number} id */
export function cancel(id) {
  stop(id, "classify");
}

/** Send the photos again that failed because the service could not be used, now that it can. */
export function retryConnection() {
  const failed = current().photos.filter(
    ({ progress }) => progress.stage === "failed" && CONNECTION.has(progress.problem.code),
  );
  if (failed.length > 0) retry(failed.map(({ id }) => id));
}

/** @param {readonly number[]} ids */
export function retry(ids) {
  // Cleared, so that screen readers announce the same sentence again.
  update({ announcement: "" });
  for (const id of ids) {
    const again = photoById(id);
    if (again) void classifyPhoto(again);
  }
}

/** Remove photos; undoRemoval() brings them back until others are removed. @param {readonly number[]} ids */
export function remove(ids) {
  forgetRemoved();
  const removed = current().photos.filter((photo) => ids.includes(photo.id));
  for (const { id } of removed) stop(id);
  const photos = current().photos.filter((photo) => !ids.includes(photo.id));
  // Reset the filter, which could hide the next photos.
  const filter = photos.length === 0 ? EVERYTHING : current().filter;
  update({ photos, removed, filter, announcement: text.removed(removed.length) });
}

export function undoRemoval() {
  const { removed, photos } = current();
  update({ photos: [...photos, ...removed].sort((a, b) => a.id - b.id), removed: [] });
  retry(removed.filter(isUnderWay).map(({ id }) => id));
  for (const photo of removed) if (photo.preview === null) void addPreview(photo);
}

/** Give up the removed photos. */
export function forgetRemoved() {
  for (const { url, preview } of current().removed) {
    URL.revokeObjectURL(url);
    if (preview) URL.revokeObjectURL(preview);
  }
  update({ removed: [] });
}

/** Classify all photos again, with another service. Answers, heat maps and thresholds of two models do not mix. */
export function startOver() {
  const { photos } = current();
  remove(photos.map(({ id }) => id));
  forgetRemoved();
  update({ threshold: null, comparedLabel: null });
  add(photos.map(({ file }) => file));
}

/**
 * Show this label's heat map over the photo, after fetching it if necessary; with null, hide the heat map.
 * @param {number} id
 * @param {string | null} label
 */
export async function showHeatMap(id, label) {
  updatePhoto(id, { shownLabel: label });
  if (label !== null) await fetchHeatMap(id, label);
}

/**
 * Fetch this label's heat map, unless it is there or already requested.
 * @param {number} id
 * @param {string} label
 */
export async function fetchHeatMap(id, label) {
  const photo = photoById(id);
  if (!photo || (Object.hasOwn(photo.heatMaps, label) && isKnown(photo.heatMaps[label]))) return;
  const key = `${id} ${label}`;
  const request = fetching.get(key) ?? requestHeatMap(photo, label).finally(() => fetching.delete(key));
  fetching.set(key, request);
  await request;
}

/** @param {HeatMapState} state */
function isKnown({ stage }) {
  return stage === "done" || stage === "coarse";
}

/** @param {Photo} photo @param {string} label */
async function requestHeatMap({ id, name, file }, label) {
  const keep = (/** @type {HeatMapState} */ state) =>
    updatePhoto(id, { heatMaps: { ...photoById(id)?.heatMaps, [label]: state } });
  keep({ stage: "loading" });
  try {
    const { heatmap, image } = await run(id, "heat map", (signal) =>
      inRequest(file, model(), (image) => classify(image, { top_k: "1", heatmap_label: label }, { signal })),
    );
    const asked = photoById(id);
    const answered = (asked && answerOf(asked)?.image) ?? image;
    if (heatmap && Math.min(heatmap.grid.length, heatmap.grid[0].length) < LEAST_CELLS) keep({ stage: "coarse" });
    else if (heatmap) {
      keep({ stage: "done", map: { ...heatmap, region: scaled(heatmap.region, image, answered) } });
      announce(text.announceHeatMap(name, label));
    }
  } catch (error) {
    keep({ stage: "failed", problem: problemOf(error) });
  }
}

/**
 * Scale a heat map's region from the sent image to the classified photo, which may have been uploaded in full size.
 * @param {Region} region
 * @param {{width: number, height: number}} sent
 * @param {{width: number, height: number}} answered
 * @returns {Region}
 */
function scaled({ left, top, width, height }, sent, answered) {
  const [across, down] = [answered.width / sent.width, answered.height / sent.height];
  return { left: left * across, top: top * down, width: width * across, height: height * down };
}

/** @param {File} file @returns {Photo} */
function newPhoto(file) {
  return {
    id: ++lastId,
    name: file.name,
    file,
    url: URL.createObjectURL(file),
    preview: null,
    progress: WAITING,
    heatMaps: {},
    shownLabel: null,
    isCompared: false,
    isConverted: false,
    saveProblem: null,
    conversation: { turns: [], question: null, draft: "", model: null, problem: null },
  };
}

/** @param {Photo} photo */
async function classifyPhoto({ id, name, file }) {
  const report = (/** @type {Progress} */ progress) => updatePhoto(id, { progress });
  report(WAITING);
  try {
    const work = async (/** @type {AbortSignal} */ signal, /** @type {Batch} */ batch) => {
      report({ stage: "preparing" });
      await connected();
      const note = (/** @type {Blob} */ image) => updatePhoto(id, { isConverted: image.size !== file.size });
      return answerTo(file, batch, signal, report, note);
    };
    const answer = await run(id, "classify", work, file.size);
    report({ stage: "done", answer });
    announceAnswer(id);
  } catch (error) {
    const problem = problemOf(error);
    const isCancelled = problem.code === "cancelled";
    report(isCancelled ? { stage: "cancelled" } : { stage: "failed", problem });
    if (UNREACHABLE.has(problem.code)) void probe();
    if (photoById(id)) announce(isCancelled ? text.announceCancelled(name) : text.announceFailed(name, problem));
  }
}

/** Show the photo, or that the browser cannot draw it. @param {Photo} photo */
async function addPreview({ id, file, url }) {
  const preview = lastPreview
    .then(() => previewOf(file))
    .then(
      (drawn) => (drawn ? URL.createObjectURL(drawn) : url),
      () => "",
    );
  lastPreview = preview;
  const shown = await preview;
  if (photoById(id)) updatePhoto(id, { preview: shown });
  else if (shown !== url) URL.revokeObjectURL(shown);
}

/**
 * @param {Blob} file
 * @param {Batch} batch that sends the image in a request
 * @param {AbortSignal} signal
 * @param {(progress: Progress) => void} report
 * @param {(image: Blob) => void} onSend gets each image that is sent in a request
 * @returns {Promise<Answer>}
 */
async function answerTo(file, batch, signal, report, onSend) {
  const listeners = {
    signal,
    onSent: (/** @type {number} */ share) => report(share < 1 ? { stage: "sending", share } : { stage: "classifying" }),
    onThrottled: (/** @type {number} */ seconds) => report({ stage: "throttled", seconds }),
    onUploaded: () => report({ stage: "following" }),
  };
  // The service classifies uploads with its default model.
  const isForUpload = settings().largePhotos === "upload" && settings().model === "";
  const original = isForUpload ? await forUpload(file, model()) : null;
  const send = (/** @type {Blob} */ image) => {
    onSend(image);
    return batch.send(image, listeners);
  };
  if (original) return orShrunken(file, () => upload(original, listeners), send);
  return inRequest(file, model(), send);
}

/** @param {number} id */
function announceAnswer(id) {
  const photo = photoById(id);
  const answer = photo && answerOf(photo);
  if (!answer) return;
  const isSure = !isUncertain(photo, leastSure());
  announce(text.announceDone(photo.name, inWords(answer, isSure)));
}

/** @param {string} announcement */
function announce(announcement) {
  const left = current().photos.filter(isUnderWay).length;
  update({ announcement: left > 0 ? `${announcement} ${text.announceLeft(left)}` : announcement });
}
