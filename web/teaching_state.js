/** What the view Teach shows: the draft as this page knows it. Only change() changes it. */

import { update } from "./state.js";

/** @import {Answer, Problem} from "./state.js" */

/**
 * @typedef {{file: string, problem: Problem}} Refused a file that is not in the draft
 * @typedef {{
 *   key: number,
 *   name: string,
 *   typed: string | null,
 *   isSaved: boolean,
 *   photos: string[],
 *   adding: {done: number, total: number} | null,
 *   refused: Refused[],
 *   nameProblem: Problem | null,
 *   showsAll: boolean,
 *   asksRemoval: boolean,
 * }} TaughtClass `photos` are ids, oldest first; `typed` is a name that is not saved yet; a class that is not saved is only on this page
 * @typedef {{id: number, url: string, answer: Answer | null, problem: Problem | null}} Trial a photo that was tried
 * @typedef {{first: string, second: string, exact: boolean}} Pair
 * @typedef {{file: string, label: string, looks_like: string, confidence: number}} Misplaced
 * @typedef {{
 *   metrics: {int8_top1: number, test_images: number, threshold: number},
 *   classes: {label: string}[],
 *   confusion: number[][],
 *   recipe: {distinct_photos: number[], references: number},
 *   review: {misplaced_listed: Misplaced[], duplicates: Pair[]},
 * }} Learned the part of metrics.json that is shown
 */

/**
 * @typedef {{
 *   isLoaded: boolean,
 *   isGone: boolean,
 *   isBusy: boolean,
 *   classes: TaughtClass[],
 *   over: number | "try" | null,
 *   removed: {key: number, photo: Blob} | null,
 *   isLearning: boolean,
 *   seconds: number,
 *   progress: {done: number, total: number} | null,
 *   learned: Learned | null,
 *   isOutdated: boolean,
 *   trials: Trial[],
 *   accepted: string[],
 *   modelName: string | null,
 *   isKeeping: boolean,
 *   kept: string | null,
 *   copied: string | null,
 *   problems: Partial<Record<"load" | "learn" | "keep", Problem>>,
 *   asksReset: boolean,
 * }} Teaching `over` is the place that files are dragged over; `accepted` are files that are not misplaced
 */

/** @type {Teaching} */
let teaching = {
  isLoaded: false,
  isGone: false,
  isBusy: false,
  classes: [],
  over: null,
  removed: null,
  isLearning: false,
  seconds: 0,
  progress: null,
  learned: null,
  isOutdated: false,
  trials: [],
  accepted: [],
  modelName: null,
  isKeeping: false,
  kept: null,
  copied: null,
  problems: {},
  asksReset: false,
};

export function state() {
  return teaching;
}

/** @param {Partial<Teaching>} changes @param {string} [announcement] */
export function change(changes, announcement) {
  teaching = { ...teaching, ...changes };
  update(announcement === undefined ? {} : { announcement });
}

/** @param {number} key @param {Partial<TaughtClass>} changes */
export function changeClass(key, changes) {
  change({ classes: teaching.classes.map((each) => (each.key === key ? { ...each, ...changes } : each)) });
}

/** @param {number} key */
export function classByKey(key) {
  return teaching.classes.find((each) => each.key === key);
}

/** @param {string} name */
export function classByName(name) {
  return teaching.classes.find((each) => each.isSaved && isSame(each.name, name));
}

/** Return the number of photos of all classes. */
export function photoCount() {
  return teaching.classes.reduce((sum, { photos }) => sum + photos.length, 0);
}

/** Whether two names are equal, except for upper and lower case. @param {string} one @param {string} other */
export function isSame(one, other) {
  return one.toLocaleLowerCase() === other.toLocaleLowerCase();
}
