/** Requests with several images: fills them, and sends images again that another request can help. */

import { Failure, classify, classifyMany, failure, fitting, problemOf } from "./api.js";

/** @import {Answer} from "./state.js" */
/** @import {Listeners} from "./api.js" */

/** Statuses of a whole request that one of its images, or their number, can cause. */
const TOO_LARGE = 413;
const DIVISIBLE = new Set([TOO_LARGE, 500, 502, 504]);

/**
 * Photos that are classified together. Each is prepared by itself and calls send(); the request is sent as soon as no
 * photo is being prepared any more. A photo can be cancelled alone.
 */
export class Batch {
  #photos;
  #preparing;
  /** @type {Item[]} */
  #waiting = [];

  /** @param {number} photos */
  constructor(photos) {
    this.#photos = photos;
    this.#preparing = photos;
  }

  /**
   * Send an image of a photo. A photo can send another one after the first was refused.
   * @param {Blob} image
   * @param {Listeners} listeners
   * @returns {Promise<Answer>}
   */
  send(image, listeners) {
    return new Promise((resolve, reject) => {
      let isOpen = true;
      const settle = (/** @type {Answer | Failure} */ outcome) => {
        if (!isOpen) return;
        isOpen = false;
        this.#waiting = this.#waiting.filter((waiting) => waiting !== item);
        this.#preparing++;
        if (outcome instanceof Failure) reject(outcome);
        else resolve(outcome);
      };
      const item = { image, listeners, settle };
      this.#preparing--;
      this.#waiting.push(item);
      const cancel = () => settle(failure("cancelled"));
      listeners.signal?.addEventListener("abort", cancel, { once: true });
      if (listeners.signal?.aborted) cancel();
      this.#flush();
    });
  }

  /** Remove a photo, which has its answer or failed; return whether it was the last one. */
  leave() {
    this.#photos--;
    this.#preparing--;
    this.#flush();
    return this.#photos === 0;
  }

  #flush() {
    while (this.#preparing === 0 && this.#waiting.length > 0) {
      void new Delivery().send(this.#waiting.splice(0, fitting(this.#waiting.map(({ image }) => image.size))));
    }
  }
}

/**
 * @typedef {{
 *   image: Blob,
 *   listeners: Listeners,
 *   settle: (outcome: Answer | Failure) => void,
 * }} Item an image to send, and what is called with its answer or failure
 */

/**
 * Sends the images of one batch in one request, and in further ones if that can help; each is settled as soon as its
 * outcome is known. If the service fails for a second single image, it is not asked again.
 */
class Delivery {
  /** @type {Failure[]} */
  #failures = [];

  /** @param {readonly Item[]} items @returns {Promise<void>} */
  async send(items) {
    if (this.#failures.length > 1) return settleAll(items, this.#failures[1]);
    try {
      const outcomes = await sendTogether(items);
      const late = items.length > 1 ? items.filter((_, index) => isLate(outcomes[index])) : [];
      items.forEach((item, index) => late.includes(item) || item.settle(outcomes[index]));
      if (late.length > 0) await (late.length < items.length ? this.send(late) : this.#sendHalves(late));
    } catch (error) {
      const failed = error instanceof Failure ? error : new Failure(problemOf(error));
      const { status } = failed.problem;
      if (items.length > 1 && DIVISIBLE.has(status)) return this.#sendHalves(items);
      if (DIVISIBLE.has(status) && status !== TOO_LARGE) this.#failures.push(failed);
      settleAll(items, failed);
    }
  }

  /** @param {readonly Item[]} items @returns {Promise<void>} */
  async #sendHalves(items) {
    const middle = Math.ceil(items.length / 2);
    await this.send(items.slice(0, middle));
    await this.send(items.slice(middle));
  }
}

/** @param {readonly Item[]} items @param {Failure} failed */
function settleAll(items, failed) {
  for (const { settle } of items) settle(failed);
}

/** Return whether the images before this one used up the time of the request. @param {Answer | Failure} outcome */
function isLate(outcome) {
  return outcome instanceof Failure && outcome.problem.code === "timeout";
}

/** @param {readonly Item[]} items @returns {Promise<(Answer | Failure)[]>} */
async function sendTogether(items) {
  if (items.length === 1) return [await classify(items[0].image, {}, items[0].listeners)];
  const controller = new AbortController();
  const signals = items.flatMap(({ listeners: { signal } }) => signal ?? []);
  // The request goes on for the others, until all are cancelled.
  const check = () => {
    if (signals.length === items.length && signals.every(({ aborted }) => aborted)) controller.abort();
  };
  for (const signal of signals) signal.addEventListener("abort", check);
  check();
  const left = () => items.filter(({ listeners: { signal } }) => !signal?.aborted).map(({ listeners }) => listeners);
  try {
    return await classifyMany(
      items.map(({ image }) => image),
      {
        signal: controller.signal,
        onSent: (share) => left().forEach(({ onSent }) => onSent?.(share)),
        onThrottled: (seconds) => left().forEach(({ onThrottled }) => onThrottled?.(seconds)),
      },
    );
  } finally {
    for (const signal of signals) signal.removeEventListener("abort", check);
  }
}
