/** Jobs of photos: a limited number of slots is used at the same time, and the jobs of a photo can be stopped. */

import { classify, failure, fitting } from "./api.js";

/** @import {Answer} from "./state.js" */
/** @import {Listeners} from "./api.js" */

/** The maximum number of slots. Browsers send about six requests per host; some are left for others. */
const MAX_SLOTS = 4;

/** @typedef {"classify" | "heat map" | "ask"} Kind */
/** @typedef {{id: number, kind: Kind, controller: AbortController}} Job */

/** @type {Set<Job>} */
const jobs = new Set();

/**
 * The jobs that share a slot: each sends its image, and leaves; the last one to leave gets true.
 * @typedef {{send: (image: Blob, listeners: Listeners) => Promise<Answer>, leave: () => boolean}} Batch
 */

/** A job with a slot of its own. @type {Batch} */
const ALONE = { send: (image, listeners) => classify(image, {}, listeners), leave: () => true };

/** A job that waits; with a size in bytes, it can share a slot. @typedef {{start: (batch: Batch) => void, size: number | null}} Waiting */

/** Jobs that wait, in order. @type {Waiting[]} */
let waiting = [];

let free = MAX_SLOTS;

/**
 * Run `work` when a slot is free, and return its result. If it is stopped before, it never starts.
 * @template T
 * @param {number} id the photo's
 * @param {Kind} kind
 * @param {(signal: AbortSignal, batch: Batch) => Promise<T>} work gets the jobs that share its slot as a batch
 * @param {number | null} size the bytes to send if the job can share its slot with others, as many as fit into a request
 * @returns {Promise<T>}
 */
export async function run(id, kind, work, size = null) {
  const job = { id, kind, controller: new AbortController() };
  jobs.add(job);
  try {
    const batch = await acquire(job.controller.signal, size);
    return await work(job.controller.signal, batch).finally(() => release(batch));
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

/** @param {AbortSignal} signal @param {number | null} size @returns {Promise<Batch>} */
function acquire(signal, size) {
  if (free > 0) {
    free--;
    return Promise.resolve(ALONE);
  }
  return new Promise((resolve, reject) => {
    const job = { start: resolve, size };
    waiting.push(job);
    signal.addEventListener("abort", () => {
      if (!waiting.includes(job)) return;
      waiting = waiting.filter((other) => other !== job);
      reject(failure("cancelled"));
    });
  });
}

/** Leave the slot, and give it to the next jobs if it is empty. @param {Batch} batch */
function release(batch) {
  if (batch.leave()) void startNext();
}

async function startNext() {
  const next = nextJobs();
  if (next.length === 0) {
    free++;
    return;
  }
  waiting = waiting.filter((job) => !next.includes(job));
  const shared = next.length > 1 ? await newBatch(next.length) : null;
  // Without a network, the next job says so.
  if (!shared) waiting = [...next.splice(1), ...waiting];
  for (const { start } of next) start(shared ?? ALONE);
}

/** Return a batch, whose code is loaded only now. @param {number} jobs @returns {Promise<Batch | null>} */
function newBatch(jobs) {
  return import("./batches.js").then(
    (module) => new module.Batch(jobs),
    () => null,
  );
}

/** Return the next job, with the others that can share its slot. */
function nextJobs() {
  if (waiting.length === 0 || waiting[0].size === null) return waiting.slice(0, 1);
  const sharing = waiting.filter(({ size }) => size !== null);
  return sharing.slice(0, fitting(sharing.map(({ size }) => size ?? 0)));
}
