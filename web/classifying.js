/** The photos' way to their answers: a few at a time, each by itself, so that one can fail, wait or be cancelled. */

import { classify, problemOf, upload } from "./api.js";
import { forUpload, inRequest } from "./images.js";
import { answerOf, isUnderWay } from "./results.js";
import { settings } from "./settings.js";
import { current, model, photo, update, updatePhoto } from "./state.js";
import { text } from "./text.js";

/** @import {Photo, Progress, Answer, HeatMapState, Region} from "./state.js" */

/** As many requests as a browser sends to one host at a time, less those that others need. */
const AT_A_TIME = 4;

/** What can be stopped, by the photo's id. @type {Map<number, AbortController>} */
const running = new Map();

/** Heat maps on their way, by the photo's id and the label. @type {Map<string, Promise<void>>} */
const fetching = new Map();

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
  updatePhoto(id, { shownLabel: label });
  if (label !== null) await fetchHeatMap(id, label);
}

/**
 * Have this label's heat map, which is asked for only when it is neither there nor on its way.
 * @param {number} id
 * @param {string} label
 */
export async function fetchHeatMap(id, label) {
  const wanted = photo(id);
  if (!wanted || (Object.hasOwn(wanted.heatMaps, label) && wanted.heatMaps[label].stage === "done")) return;
  const key = `${id} ${label}`;
  const onItsWay = fetching.get(key) ?? askForHeatMap(id, wanted.file, label).finally(() => fetching.delete(key));
  fetching.set(key, onItsWay);
  await onItsWay;
}

/** @param {number} id @param {Blob} file @param {string} label */
async function askForHeatMap(id, file, label) {
  const keep = (/** @type {HeatMapState} */ state) =>
    updatePhoto(id, { heatMaps: { ...photo(id)?.heatMaps, [label]: state } });
  keep({ stage: "loading" });
  try {
    const { heatmap, image } = await classified(file, { top_k: "1", heatmap_label: label }, {});
    const asked = photo(id);
    const answered = (asked && answerOf(asked)?.image) ?? image;
    if (heatmap) keep({ stage: "done", map: { ...heatmap, region: scaled(heatmap.region, image, answered) } });
  } catch (error) {
    keep({ stage: "failed", problem: problemOf(error) });
  }
}

/**
 * The region in pixels of the photo that was answered: one that was uploaded as it is was made smaller for its heat map.
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
    progress: { stage: "waiting" },
    heatMaps: {},
    shownLabel: null,
    isCompared: false,
    conversation: { turns: [], question: null, draft: "", model: null, problem: null },
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
    const answer = await answerTo(file, controller.signal, tell);
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
async function answerTo(file, signal, tell) {
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
 * @param {Blob} file
 * @param {Record<string, string>} options
 * @param {import("./api.js").Listeners} listeners
 * @returns {Promise<Answer>}
 */
function classified(file, options, listeners) {
  return inRequest(file, model(), (image) => classify(image, options, listeners));
}

/** @param {string} announcement */
function announce(announcement) {
  const left = current().photos.filter(isUnderWay).length;
  update({ announcement: left > 0 ? `${announcement} ${text.announceLeft(left)}` : announcement });
}
