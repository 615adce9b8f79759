/** The photos' way to their answers: a few at a time, each by itself, so that one can fail, wait or be cancelled. */

import { Failure, classify, problemOf, upload } from "./api.js";
import { forRequest, forUpload, shrunken } from "./images.js";
import { settings } from "./settings.js";
import { current, model, photo, update, updatePhoto } from "./state.js";
import { text } from "./text.js";

/** @import {Photo, Progress, Answer, HeatMapState} from "./state.js" */

/** As many requests as a browser sends to one host at a time, less those that others need. */
const AT_A_TIME = 4;

const TOO_LARGE = new Set(["request_too_large", "image_too_large"]);

/** What can be stopped, by the photo's id. @type {Map<number, AbortController>} */
const running = new Map();

let lastId = 0;

/** @param {readonly File[]} files */
export function add(files) {
  const photos = files.map(newPhoto);
  update({ photos: [...current().photos, ...photos] });
  goOn();
}

/** @param {number} id */
export function cancel(id) {
  running.get(id)?.abort();
  if (photo(id)?.progress.stage === "waiting") updatePhoto(id, { progress: { stage: "cancelled" } });
}

/** @param {readonly number[]} ids */
export function retry(ids) {
  for (const id of ids) updatePhoto(id, { progress: { stage: "waiting" } });
  goOn();
}

/** @param {readonly number[]} ids */
export function remove(ids) {
  for (const id of ids) {
    running.get(id)?.abort();
    const gone = photo(id);
    if (gone) URL.revokeObjectURL(gone.url);
  }
  update({ photos: current().photos.filter((photo) => !ids.includes(photo.id)) });
}

/**
 * Lay this label's heat map over the photo, and fetch it first if need be; or take it away, when the label is null.
 * @param {number} id
 * @param {string | null} label
 */
export async function showHeatMap(id, label) {
  const shown = photo(id);
  if (!shown) return;
  updatePhoto(id, { shownLabel: label });
  if (label === null || (Object.hasOwn(shown.heatMaps, label) && shown.heatMaps[label].stage !== "failed")) return;
  const keep = (/** @type {HeatMapState} */ state) =>
    updatePhoto(id, { heatMaps: { ...photo(id)?.heatMaps, [label]: state } });
  keep({ stage: "loading" });
  try {
    const { heatmap } = await classified(shown.file, { top_k: "1", heatmap_label: label }, {});
    if (heatmap) keep({ stage: "done", map: heatmap });
  } catch (error) {
    keep({ stage: "failed", problem: problemOf(error) });
  }
}

/** @param {File} file @returns {Photo} */
function newPhoto(file) {
  return {
    id: ++lastId,
    name: file.name,
    file,
    url: URL.createObjectURL(file),
    progress: { stage: "waiting" },
    heatMaps: {},
    shownLabel: null,
    isCompared: false,
    conversation: { turns: [], question: null, model: null, problem: null },
  };
}

function goOn() {
  for (const waiting of current().photos.filter(({ progress }) => progress.stage === "waiting")) {
    if (running.size >= AT_A_TIME) return;
    if (!running.has(waiting.id)) void run(waiting);
  }
}

/** @param {Photo} photo */
async function run({ id, name, file }) {
  const controller = new AbortController();
  running.set(id, controller);
  const tell = (/** @type {Progress} */ progress) => updatePhoto(id, { progress });
  tell({ stage: "preparing" });
  try {
    const answer = await answerOf(file, controller.signal, tell);
    tell({ stage: "done", answer });
    announce(text.announceDone(name, answer.predictions[0]));
  } catch (error) {
    const problem = problemOf(error);
    tell(problem.code === "cancelled" ? { stage: "cancelled" } : { stage: "failed", problem });
    announce(problem.code === "cancelled" ? text.announceCancelled(name) : text.announceFailed(name, problem));
  } finally {
    running.delete(id);
    goOn();
  }
}

/**
 * @param {Blob} file
 * @param {AbortSignal} signal
 * @param {(progress: Progress) => void} tell
 * @returns {Promise<Answer>}
 */
async function answerOf(file, signal, tell) {
  const listeners = {
    signal,
    onSent: (/** @type {number} */ share) => tell(share < 1 ? { stage: "sending", share } : { stage: "classifying" }),
    onThrottled: (/** @type {number} */ seconds) => tell({ stage: "throttled", seconds }),
    onUploaded: () => tell({ stage: "following" }),
  };
  const original = settings().largePhotos === "upload" ? await forUpload(file, model()) : null;
  if (original) return upload(original, listeners);
  return classified(file, {}, listeners);
}

/**
 * What the API says of a photo, which is made smaller for it once it is found too large.
 * @param {Blob} file
 * @param {Record<string, string>} options
 * @param {import("./api.js").Listeners} listeners
 * @returns {Promise<Answer>}
 */
async function classified(file, options, listeners) {
  try {
    return await classify(await forRequest(file, model()), options, listeners);
  } catch (error) {
    if (!(error instanceof Failure) || !TOO_LARGE.has(error.problem.code)) throw error;
    return classify(await shrunken(file), options, listeners);
  }
}

/** @param {string} announcement */
function announce(announcement) {
  const left = current().photos.filter(({ id }) => running.has(id)).length - 1;
  update({ announcement: left > 0 ? `${announcement} ${text.announceLeft(left)}` : announcement });
}
