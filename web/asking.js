/** The conversation about a photo. */

import { describe, problemOf } from "./api.js";
import { base64Of, forRequest } from "./images.js";
import { model, photo, updatePhoto } from "./state.js";

/** @import {Conversation} from "./state.js" */

/** What can be stopped, by the photo's id. @type {Map<number, AbortController>} */
const running = new Map();

/**
 * @param {number} id the photo's
 * @param {string} question
 */
export async function ask(id, question) {
  const asked = photo(id);
  if (!asked || asked.conversation.question !== null) return;
  const controller = new AbortController();
  running.set(id, controller);
  change(id, { question, problem: null });
  try {
    const image = await base64Of(await forRequest(asked.file, model()));
    const said = await describe(image, question, asked.conversation.turns, controller.signal);
    change(id, { turns: said.turns, model: said.describe_model, question: null });
  } catch (error) {
    change(id, { problem: problemOf(error), question: null });
  } finally {
    running.delete(id);
  }
}

/** @param {number} id */
export function stopAsking(id) {
  running.get(id)?.abort();
}

/** @param {number} id @param {Partial<Conversation>} changes */
function change(id, changes) {
  const changed = photo(id);
  if (changed) updatePhoto(id, { conversation: { ...changed.conversation, ...changes } });
}
