/** The page's state. Everything on the page is drawn from this object, which only update() changes. */

/**
 * @typedef {{label: string, index: number, confidence: number, group?: string, present?: boolean}} Prediction
 * @typedef {{left: number, top: number, width: number, height: number}} Region in pixels of the upright photo
 * @typedef {{label: string, png: string, grid: number[][], region: Region}} HeatMap
 * @typedef {{name: string, version: string}} ModelName
 * @typedef {{
 *   image: {format: string, width: number, height: number},
 *   predictions: Prediction[],
 *   group?: {label: string, confidence: number},
 *   timing_ms: {decode: number, inference: number, total: number},
 *   model: ModelName,
 *   heatmap?: HeatMap,
 *   uncertain: boolean,
 *   unfamiliar?: boolean,
 * }} Answer the API's answer for one photo
 * @typedef {{question: string, answer: string}} Turn
 * @typedef {{code: string, detail: string, status: number, requestId: string | null}} Problem
 */

/**
 * The progress of a photo.
 * @typedef {{stage: "waiting" | "preparing" | "classifying" | "following"}
 *   | {stage: "sending", share: number}
 *   | {stage: "throttled", seconds: number}
 *   | {stage: "cancelled"}
 *   | {stage: "failed", problem: Problem}
 *   | {stage: "done", answer: Answer}} Progress
 */

/**
 * The state of a requested heat map; a coarse one is not shown.
 * @typedef {{stage: "loading" | "coarse"} | {stage: "failed", problem: Problem} | {stage: "done", map: HeatMap}} HeatMapState
 */

/**
 * The conversation about a photo.
 * @typedef {{
 *   turns: Turn[],
 *   question: string | null,
 *   draft: string,
 *   model: string | null,
 *   problem: Problem | null,
 * }} Conversation `question` waits for its answer; `draft` is not sent yet
 */

/**
 * @typedef {{
 *   id: number,
 *   name: string,
 *   file: File,
 *   url: string,
 *   preview: string | null,
 *   progress: Progress,
 *   heatMaps: Record<string, HeatMapState>,
 *   shownLabel: string | null,
 *   isCompared: boolean,
 *   isConverted: boolean,
 *   saveProblem: Problem | null,
 *   conversation: Conversation,
 * }} Photo `url` is the URL of the file, `preview` of the picture to show, empty if the browser cannot draw it; `shownLabel` is the label of the shown heat map; `isConverted` says that the page sent another file, a JPEG; `saveProblem` is why saving failed
 */

/**
 * The answer of GET /v1/model.
 * @typedef {{
 *   manifest: Record<string, any>,
 *   links: {models?: string, report?: string, uploads?: string, describe?: string},
 *   limits: {request_bytes: number, pixels: number, upload_bytes?: number},
 *   metrics?: Record<string, any>,
 * }} Model
 * @typedef {{stage: "loading"} | {stage: "failed", problem: Problem} | {stage: "ready", model: Model}} Service
 * @typedef {{usual: string, names: string[]}} Choice the name of the default model, and of all that can be used
 */

/** @typedef {"added" | "name" | "label" | "surest" | "least sure"} Order */
/** @typedef {"all" | "certain" | "uncertain" | "failed"} Kind */
/** @typedef {{order: Order, kind: Kind, label: string, leastConfidence: number}} Filter */
/** @typedef {{column: string, isDescending: boolean, text: string}} ClassTable */

/**
 * @typedef {{
 *   view: string,
 *   service: Service,
 *   models: Choice | null,
 *   photos: readonly Photo[],
 *   threshold: number | null,
 *   known: {threshold: number, classes: number} | null,
 *   opacity: number,
 *   filter: Filter,
 *   isAdjusting: boolean,
 *   openedPhoto: number | null,
 *   codePhoto: number | null,
 *   removed: readonly Photo[],
 *   isKeeping: boolean,
 *   comparedLabel: string | null,
 *   askedPhoto: number | null,
 *   reportProblem: Problem | null,
 *   classTable: ClassTable,
 *   confusedClass: number,
 *   isDraggedOver: boolean,
 *   announcement: string,
 * }} State `models` is null if there is only one; `threshold` is null until the user changes it; until then, the threshold of `known`, the last known model, applies; `openedPhoto` is shown large, `codePhoto` as code; `removed` can be restored; `isKeeping` says that photos survive a reload
 */

/** The filter that matches all photos. @type {Filter} */
export const EVERYTHING = { order: "added", kind: "all", label: "", leastConfidence: 0 };

/** A confidence below this multiple of chance is never called sure. */
const NEAR_CHANCE = 1.25;

/** @type {State} */
let state = {
  view: "classify",
  service: { stage: "loading" },
  models: null,
  photos: [],
  threshold: null,
  known: null,
  opacity: 0.6,
  filter: EVERYTHING,
  isAdjusting: false,
  openedPhoto: null,
  codePhoto: null,
  removed: [],
  isKeeping: false,
  comparedLabel: null,
  askedPhoto: null,
  reportProblem: null,
  classTable: { column: "f1", isDescending: true, text: "" },
  confusedClass: 0,
  isDraggedOver: false,
  announcement: "",
};

/** @type {Set<() => void>} */
const listeners = new Set();

/** @returns {State} */
export function current() {
  return state;
}

/**
 * Change the state and notify the listeners.
 * @param {Partial<State>} changes
 */
export function update(changes) {
  state = { ...state, ...changes };
  for (const listener of listeners) listener();
}

/** @param {() => void} listener called after each change */
export function onChange(listener) {
  listeners.add(listener);
}

/**
 * @param {number} id
 * @returns {Photo | undefined}
 */
export function photoById(id) {
  return state.photos.find((photo) => photo.id === id);
}

/**
 * Change a photo, unless it was removed meanwhile.
 * @param {number} id
 * @param {Partial<Photo>} changes
 */
export function updatePhoto(id, changes) {
  update({ photos: state.photos.map((photo) => (photo.id === id ? { ...photo, ...changes } : photo)) });
}

/** Return the deployment's model, or null if it is not known. @returns {Model | null} */
export function model() {
  return state.service.stage === "ready" ? state.service.model : null;
}

/** Return the confidence below which an answer is uncertain, or null if no model is known. @returns {number | null} */
export function threshold() {
  return state.threshold ?? state.known?.threshold ?? null;
}

/**
 * Return the least confidence of a sure answer, or null if no model is known. It is the threshold; but with few classes,
 * a low threshold would call near chance sure.
 * @returns {number | null}
 */
export function leastSure() {
  const least = threshold();
  return least === null || !state.known ? least : Math.max(least, NEAR_CHANCE / state.known.classes);
}
