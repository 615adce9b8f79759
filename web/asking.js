/** The conversation about a photo. */

import { describe, problemOf } from "./api.js";
import { base64Of, inRequest } from "./images.js";
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
  change(id, { question, draft: "", problem: null });
  try {
    const said = await inRequest(asked.file, model(), async (image) =>
      describe(await base64Of(image), question, asked.conversation.turns, controller.signal),
    );
    change(id, { turns: said.turns, model: said.describe_model, question: null });
  } catch (error) {
    // Nobody need type it again.
    const draft = photo(id)?.conversation.draft || question;
    change(id, { problem: problemOf(error), question: null, draft });
  } finally {
    running.delete(id);
  }
}

/** @param {number} id */
export function stopAsking(id) {
  running.get(id)?.abort();
}

/** Keep what is not sent yet. @param {number} id @param {string} draft */
export function keepDraft(id, draft) {
  change(id, { draft });
}

/** @param {number} id @param {Partial<Conversation>} changes */
function change(id, changes) {
  const changed = photo(id);
  if (changed) updatePhoto(id, { conversation: { ...changed.conversation, ...changes } });
}
