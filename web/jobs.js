/** Jobs of photos: a limited number runs at the same time, and the jobs of a photo can be stopped. */

import { failure } from "./api.js";

/** The maximum number of concurrent jobs. Browsers send about six requests per host; some are left for others. */
const MAX_JOBS = 4;

/** @typedef {"classify" | "heat map" | "ask"} Kind */
/** @typedef {{id: number, kind: Kind, controller: AbortController}} Job */

/** @type {Set<Job>} */
const jobs = new Set();

/** Jobs that wait, in order. @type {(() => void)[]} */
const waiting = [];

let free = MAX_JOBS;

/**
 * Run `work` when a slot is free, and return its result. If it is stopped before, it never starts.
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
    await acquire(job.controller.signal);
    return await work(job.controller.signal).finally(release);
  } finally {
    jobs.delete(job);
  }
}

/**
 * Stop the jobs of a photo, all or of one kind; they end as cancelled.
 * @param {number} id
 * @param {Kind} [kind]
 */
export function stop(id, kind) {
  for (const job of jobs) {
    if (job.id === id && (kind === undefined || job.kind === kind)) job.controller.abort();
  }
}

/** @param {AbortSignal} signal @returns {Promise<void>} */
function acquire(signal) {
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

/** Give the slot to the next job. */
function release() {
  const next = waiting.shift();
  if (next) next();
  else free++;
}
