/** Addresses of the page's own files, which are in the folder of this module; the document is not always there. */

/** @param {string} path from this folder @returns {string} */
export function addressOf(path) {
  return new URL(path, import.meta.url).href;
}
