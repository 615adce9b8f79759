/** Classifies photos. Each photo is independent: it can fail, wait or be cancelled alone. */

import { classify, problemOf, upload } from "./api.js";
import { forUpload, inRequest, orShrunken, previewOf } from "./images.js";
import { run, stop } from "./jobs.js";
import { answerOf, isUnderWay } from "./results.js";
import { connected } from "./service.js";
import { settings } from "./settings.js";
import { EVERYTHING, current, model, photoById, update, updatePhoto } from "./state.js";
import { text } from "./text.js";

/** @import {Photo, Progress, Answer, HeatMapState, Region} from "./state.js" */

/** Requests for heat maps in progress, by the photo's id and the label. @type {Map<string, Promise<void>>} */
const fetching = new Map();

/** The largest photo, in bytes, that is shown without a smaller preview. */
const MAX_PREVIEW_BYTES = 1_000_000;

let lastId = 0;

/** The last preview; previews are made one after the other. @type {Promise<unknown>} */
let lastPreview = Promise.resolve();

/** @param {readonly File[]} files */
export function add(files) {
  const photos = files.map(newPhoto);
  update({ photos: [...current().photos, ...photos], announcement: "" });
  for (const photo of photos) {
    void classifyPhoto(photo);
    void addPreview(photo);
  }
}

/** @param {number} id */
export function cancel(id) {
  stop(id, "classify");
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

/** @param {readonly number[]} ids */
export function remove(ids) {
  for (const id of ids) {
    stop(id);
    const gone = photoById(id);
    if (gone) URL.revokeObjectURL(gone.url);
    if (gone?.preview) URL.revokeObjectURL(gone.preview);
  }
  const photos = current().photos.filter((photo) => !ids.includes(photo.id));
  // Reset the filter, which could hide the next photos.
  update({ photos, filter: photos.length === 0 ? EVERYTHING : current().filter });
}

/** Classify all photos again, with another service. Answers, heat maps and thresholds of two models do not mix. */
export function startOver() {
  const { photos } = current();
  remove(photos.map(({ id }) => id));
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
  if (!photo || (Object.hasOwn(photo.heatMaps, label) && photo.heatMaps[label].stage === "done")) return;
  const key = `${id} ${label}`;
  const request = fetching.get(key) ?? requestHeatMap(photo, label).finally(() => fetching.delete(key));
  fetching.set(key, request);
  await request;
}

/** @param {Photo} photo @param {string} label */
async function requestHeatMap({ id, name, file }, label) {
  const keep = (/** @type {HeatMapState} */ state) =>
    updatePhoto(id, { heatMaps: { ...photoById(id)?.heatMaps, [label]: state } });
  keep({ stage: "loading" });
  try {
    const { heatmap, image } = await run(id, "heat map", (signal) =>
      classified(file, { top_k: "1", heatmap_label: label }, { signal }),
    );
    const asked = photoById(id);
    const answered = (asked && answerOf(asked)?.image) ?? image;
    if (heatmap) {
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
    progress: { stage: "waiting" },
    heatMaps: {},
    shownLabel: null,
    isCompared: false,
    saveProblem: null,
    conversation: { turns: [], question: null, draft: "", model: null, problem: null },
  };
}

/** @param {Photo} photo */
async function classifyPhoto({ id, name, file }) {
  const report = (/** @type {Progress} */ progress) => updatePhoto(id, { progress });
  report({ stage: "waiting" });
  try {
    const answer = await run(id, "classify", async (signal) => {
      report({ stage: "preparing" });
      await connected();
      return answerTo(file, signal, report);
    });
    report({ stage: "done", answer });
    announce(text.announceDone(name, answer.predictions[0]));
  } catch (error) {
    const problem = problemOf(error);
    const isCancelled = problem.code === "cancelled";
    report(isCancelled ? { stage: "cancelled" } : { stage: "failed", problem });
    if (photoById(id)) announce(isCancelled ? text.announceCancelled(name) : text.announceFailed(name, problem));
  }
}

/** Make a small preview of a large photo, because many large photos would fill the memory. @param {Photo} photo */
async function addPreview({ id, file, url }) {
  if (file.size <= MAX_PREVIEW_BYTES) return updatePhoto(id, { preview: url });
  const preview = lastPreview.then(() => previewOf(file));
  lastPreview = preview.catch(() => undefined);
  try {
    const made = URL.createObjectURL(await preview);
    if (photoById(id)) updatePhoto(id, { preview: made });
    else URL.revokeObjectURL(made);
  } catch {
    updatePhoto(id, { preview: url });
  }
}

/**
 * @param {Blob} file
 * @param {AbortSignal} signal
 * @param {(progress: Progress) => void} report
 * @returns {Promise<Answer>}
 */
async function answerTo(file, signal, report) {
  const listeners = {
    signal,
    onSent: (/** @type {number} */ share) => report(share < 1 ? { stage: "sending", share } : { stage: "classifying" }),
    onThrottled: (/** @type {number} */ seconds) => report({ stage: "throttled", seconds }),
    onUploaded: () => report({ stage: "following" }),
  };
  // The service classifies uploads with its default model.
  const isForUpload = settings().largePhotos === "upload" && settings().model === "";
  const original = isForUpload ? await forUpload(file, model()) : null;
  return original
    ? orShrunken(
        file,
        () => upload(original, listeners),
        (image) => classify(image, {}, listeners),
      )
    : classified(file, {}, listeners);
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
