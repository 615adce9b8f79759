/** What goes on for the photos: so much at a time, and stopped by the photo that it is for. */

import { failure } from "./api.js";

/** As many requests as a browser sends to one host at a time, less those that others need. */
const AT_A_TIME = 4;

/** @typedef {"classify" | "heat map" | "ask"} Kind */
/** @typedef {{id: number, kind: Kind, controller: AbortController}} Job */

/** @type {Set<Job>} */
const jobs = new Set();

/** Those that wait for their turn, first come first. @type {(() => void)[]} */
const waiting = [];

let free = AT_A_TIME;

/**
 * What `work` makes, once it has had its turn. Stopped before that, it is never begun.
 * @template T
 * @param {number} id the photo's
 * @param {Kind} kind
 * @param {(signal: AbortSignal) => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function run(id, kind, work) {
  const job = { id, kind, controller: new AbortController() };
  jobs.add(job);
  try {
    await turn(job.controller.signal);
    return await work(job.controller.signal).finally(pass);
  } finally {
    jobs.delete(job);
  }
}

/**
 * Stop what goes on for a photo, or only that of one kind; it ends as cancelled.
 * @param {number} id
 * @param {Kind} [kind]
 */
export function stop(id, kind) {
  for (const job of jobs) {
    if (job.id === id && (kind === undefined || job.kind === kind)) job.controller.abort();
  }
}

/** @param {AbortSignal} signal @returns {Promise<void>} */
function turn(signal) {
  if (free > 0) {
    free--;
    return Promise.resolve();
  }
  return new Promise((resolve, reject) => {
    waiting.push(resolve);
    signal.addEventListener("abort", () => {
      const place = waiting.indexOf(resolve);
      if (place < 0) return;
      waiting.splice(place, 1);
      reject(failure("cancelled"));
    });
  });
}

/** The turn goes to the next. */
function pass() {
  const next = waiting.shift();
  if (next) next();
  else free++;
}
