/** Filters, sorts and exports results. */

import { text } from "./text.js";

/** @import {Photo, Filter, Answer, Prediction, Problem} from "./state.js" */

/** The columns of `litelens classify --csv`. */
const COLUMNS = ["image", "label", "confidence", "uncertain", "unfamiliar", "group", "model", "error_code", "error"];

/** Codes of problems with the file itself. */
const FAULTY = new Set([
  "corrupt_image",
  "file_gone",
  "image_missing",
  "image_too_large",
  "not_an_image",
  "not_drawn",
  "request_too_large",
]);

/** The number of labels that are shown behind those that the answer names. */
const OTHERS = 5;

/** Characters that begin a formula in a spreadsheet. */
const FORMULA = /^[=+\-@\t\r]/;

/** @param {Photo} photo @returns {Answer | null} */
export function answerOf({ progress }) {
  return progress.stage === "done" ? progress.answer : null;
}

/**
 * Return the labels that an answer names: those that are present, or the best one if the labels exclude each other.
 * @param {Answer} answer
 * @returns {Prediction[]}
 */
export function labelsOf({ predictions }) {
  return hasSeveral(predictions) ? predictions.filter(({ present }) => present) : predictions.slice(0, 1);
}

/** Return the labels that are shown: those of labelsOf(), then the best of the others. @param {Answer} answer */
export function shownLabels(answer) {
  const named = labelsOf(answer);
  return [...named, ...answer.predictions.filter((each) => !named.includes(each)).slice(0, OTHERS)];
}

/** Return whether a photo can have several of the labels. @param {readonly Prediction[]} predictions */
export function hasSeveral([first]) {
  return first.present !== undefined;
}

/** Return an answer in one line. @param {Answer} answer @param {boolean} isSure */
export function inWords(answer, isSure) {
  return hasSeveral(answer.predictions) && answer.unfamiliar !== true
    ? text.saidLabels(labelsOf(answer))
    : text.said(answer.predictions[0], isSure, answer.unfamiliar === true);
}

/** @param {Photo} photo */
export function isUnderWay(photo) {
  return answerOf(photo) === null && !isSettledWithout(photo);
}

/** Return whether the photo failed or was cancelled. @param {Photo} photo */
export function isSettledWithout({ progress }) {
  return progress.stage === "failed" || progress.stage === "cancelled";
}

/** Return whether sending the photo again can help. @param {Photo} photo */
export function canRetry({ progress }) {
  return progress.stage === "cancelled" || (progress.stage === "failed" && !FAULTY.has(progress.problem.code));
}

/**
 * @param {Photo} photo
 * @param {number | null} least the least confidence of a sure answer; if it is not known, the API's own decision counts
 */
export function isUncertain(photo, least) {
  const answer = answerOf(photo);
  if (answer === null) return false;
  return answer.unfamiliar === true || (least === null ? answer.uncertain : answer.predictions[0].confidence < least);
}

/**
 * Return the photos that match the filter, sorted; photos without an answer or with no label come last, in the order of
 * adding.
 * @param {readonly Photo[]} photos
 * @param {Filter} filter
 * @param {number | null} least see isUncertain()
 * @returns {Photo[]}
 */
export function shown(photos, filter, least) {
  return photos.filter((photo) => matches(photo, filter, least)).sort((a, b) => compare(a, b, filter.order));
}

/** @param {Photo} photo @param {Filter} filter @param {number | null} least */
function matches(photo, { kind, label, leastConfidence }, least) {
  if (kind === "failed") return photo.progress.stage === "failed";
  if (kind === "uncertain" && !isUncertain(photo, least)) return false;
  const answer = answerOf(photo);
  if (answer === null) return kind === "all" && label === "" && leastConfidence === 0;
  if (kind === "certain" && isUncertain(photo, least)) return false;
  return (
    (label === "" && leastConfidence === 0) ||
    labelsOf(answer).some((each) => (label === "" || each.label === label) && each.confidence >= leastConfidence)
  );
}

/** Return the best label that a photo's answer names, if there is one. @param {Photo} photo */
function bestOf(photo) {
  const answer = answerOf(photo);
  return answer === null ? undefined : labelsOf(answer).at(0);
}

/** @param {Photo} a @param {Photo} b @param {import("./state.js").Order} order */
function compare(a, b, order) {
  if (order === "added") return a.id - b.id;
  if (order === "name") return a.name.localeCompare(b.name, text.language, { numeric: true }) || a.id - b.id;
  const [first, second] = [bestOf(a), bestOf(b)];
  if (!first || !second) return Number(!first) - Number(!second) || a.id - b.id;
  if (order === "label")
    return first.label.localeCompare(second.label, text.language) || second.confidence - first.confidence;
  return (second.confidence - first.confidence) * (order === "surest" ? 1 : -1) || a.id - b.id;
}

/**
 * Return CSV (RFC 4180) with a row for each photo that has an answer or failed. An apostrophe before a cell keeps
 * spreadsheets from reading it as a formula.
 * @param {readonly Photo[]} photos
 * @param {number | null} least see isUncertain()
 * @param {(problem: Problem) => string} sentence
 * @returns {string}
 */
export function toCsv(photos, least, sentence) {
  const rows = photos.flatMap((photo) => {
    if (photo.progress.stage === "failed") {
      return [[photo.name, "", "", "", "", "", "", photo.progress.problem.code, sentence(photo.progress.problem)]];
    }
    const answer = answerOf(photo);
    if (!answer) return [];
    const named = labelsOf(answer);
    const cells = [named.map(({ label }) => label).join(";"), named.map(({ confidence }) => confidence).join(";")];
    const doubts = [`${isUncertain(photo, least)}`, `${answer.unfamiliar ?? ""}`];
    const model = `${answer.model.name}/${answer.model.version}`;
    return [[photo.name, ...cells, ...doubts, answer.group?.label ?? "", model, "", ""]];
  });
  return [COLUMNS, ...rows].map((cells) => `${cells.map(csvCell).join(",")}\r\n`).join("");
}

/** @param {string} text */
function csvCell(text) {
  const plain = FORMULA.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}

/**
 * Return JSON like `litelens classify --json`, for each photo that has an answer or failed; `threshold` is the page's.
 * @param {readonly Photo[]} photos
 * @param {number | null} least see isUncertain()
 * @param {(problem: Problem) => string} sentence
 * @returns {string}
 */
export function toJson(photos, least, sentence) {
  const results = photos.map((photo) => documentOf(photo, least, sentence)).filter((document) => document !== null);
  return `${JSON.stringify(results, null, 2)}\n`;
}

/** @param {Photo} photo @param {number | null} least @param {(problem: Problem) => string} sentence */
function documentOf(photo, least, sentence) {
  const { progress, name } = photo;
  if (progress.stage === "failed") {
    const { code, requestId } = progress.problem;
    const problem = { code, detail: sentence(progress.problem), request_id: requestId ?? undefined };
    return { source: name, status: "failed", problem };
  }
  if (progress.stage !== "done") return null;
  return {
    source: name,
    status: "done",
    ...progress.answer,
    uncertain: isUncertain(photo, least),
    threshold: least ?? undefined,
  };
}
