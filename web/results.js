/** Filters, sorts and exports results. */

import { text } from "./text.js";

/** @import {Photo, Filter, Answer, Problem} from "./state.js" */

/** The columns of `litelens classify --csv`. */
const COLUMNS = ["image", "label", "confidence", "uncertain", "unfamiliar", "group", "model", "error_code", "error"];

/** Characters that begin a formula in a spreadsheet. */
const FORMULA = /^[=+\-@\t\r]/;

/** @param {Photo} photo @returns {Answer | null} */
export function answerOf({ progress }) {
  return progress.stage === "done" ? progress.answer : null;
}

/** @param {Photo} photo */
export function isUnderWay({ progress }) {
  return !["done", "failed", "cancelled"].includes(progress.stage);
}

/** @param {Photo} photo @param {number} threshold */
export function isUncertain(photo, threshold) {
  const answer = answerOf(photo);
  return answer !== null && (answer.unfamiliar === true || answer.predictions[0].confidence < threshold);
}

/**
 * Return the photos that match the filter, sorted; photos without an answer come last, in the order of adding.
 * @param {readonly Photo[]} photos
 * @param {Filter} filter
 * @param {number} threshold
 * @returns {Photo[]}
 */
export function shown(photos, filter, threshold) {
  return photos.filter((photo) => matches(photo, filter, threshold)).sort((a, b) => compare(a, b, filter.order));
}

/** @param {Photo} photo @param {Filter} filter @param {number} threshold */
function matches(photo, { kind, label, leastConfidence }, threshold) {
  if (kind === "failed") return photo.progress.stage === "failed";
  if (kind === "uncertain" && !isUncertain(photo, threshold)) return false;
  const answer = answerOf(photo);
  if (answer === null) return kind === "all" && label === "" && leastConfidence === 0;
  if (kind === "certain" && isUncertain(photo, threshold)) return false;
  const asked = label === "" ? answer.predictions[0] : answer.predictions.find((found) => found.label === label);
  return asked !== undefined && asked.confidence >= leastConfidence;
}

/** @param {Photo} a @param {Photo} b @param {import("./state.js").Order} order */
function compare(a, b, order) {
  if (order === "added") return a.id - b.id;
  if (order === "name") return a.name.localeCompare(b.name, text.language, { numeric: true }) || a.id - b.id;
  const [first, second] = [answerOf(a)?.predictions[0], answerOf(b)?.predictions[0]];
  if (!first || !second) return Number(!first) - Number(!second) || a.id - b.id;
  if (order === "label")
    return first.label.localeCompare(second.label, text.language) || second.confidence - first.confidence;
  return (second.confidence - first.confidence) * (order === "surest" ? 1 : -1) || a.id - b.id;
}

/**
 * Return CSV (RFC 4180) with a row for each photo that has an answer or failed. An apostrophe before a cell keeps
 * spreadsheets from reading it as a formula.
 * @param {readonly Photo[]} photos
 * @param {number} threshold
 * @param {(problem: Problem) => string} sentence
 * @returns {string}
 */
export function toCsv(photos, threshold, sentence) {
  const rows = photos.flatMap((photo) => {
    if (photo.progress.stage === "failed") {
      return [[photo.name, "", "", "", "", "", "", photo.progress.problem.code, sentence(photo.progress.problem)]];
    }
    const answer = answerOf(photo);
    if (!answer) return [];
    const [best] = answer.predictions;
    const doubts = [`${isUncertain(photo, threshold)}`, `${answer.unfamiliar ?? ""}`];
    const model = `${answer.model.name}/${answer.model.version}`;
    return [[photo.name, best.label, `${best.confidence}`, ...doubts, answer.group?.label ?? "", model, "", ""]];
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
 * @param {number} threshold
 * @param {(problem: Problem) => string} sentence
 * @returns {string}
 */
export function toJson(photos, threshold, sentence) {
  const results = photos.map((photo) => documentOf(photo, threshold, sentence)).filter((document) => document !== null);
  return `${JSON.stringify(results, null, 2)}\n`;
}

/** @param {Photo} photo @param {number} threshold @param {(problem: Problem) => string} sentence */
function documentOf(photo, threshold, sentence) {
  const { progress, name } = photo;
  if (progress.stage === "failed") {
    const { code, requestId } = progress.problem;
    const problem = { code, detail: sentence(progress.problem), request_id: requestId ?? undefined };
    return { source: name, status: "failed", problem };
  }
  if (progress.stage !== "done") return null;
  return { source: name, status: "done", ...progress.answer, uncertain: isUncertain(photo, threshold), threshold };
}
