/** Where the API is, its key, and how the page looks. The first two are forgotten with the tab. */

/** @typedef {"auto" | "light" | "dark"} Theme */
/** @typedef {"shrink" | "upload"} LargePhotos what is done with photos that one request cannot carry */
/** @typedef {{endpoint: string, key: string, theme: Theme, largePhotos: LargePhotos}} Settings */

/** @typedef {keyof Settings} Name */

/** @type {Record<Name, {store: () => Storage, otherwise: string}>} */
const PLACES = {
  endpoint: { store: () => sessionStorage, otherwise: "" },
  key: { store: () => sessionStorage, otherwise: "" },
  theme: { store: () => localStorage, otherwise: "auto" },
  largePhotos: { store: () => localStorage, otherwise: "shrink" },
};

/** Where the browser keeps no data of sites, this page does until it is closed. @type {Map<string, string>} */
const kept = new Map();

/** Those of this tab. An empty endpoint is the page's own origin. @returns {Settings} */
export function settings() {
  return /** @type {Settings} */ (
    Object.fromEntries(
      Object.entries(PLACES).map(([name, { otherwise }]) => [name, read(/** @type {Name} */ (name)) ?? otherwise]),
    )
  );
}

/** @param {Partial<Settings>} changes */
export function saveSettings(changes) {
  for (const [name, value] of Object.entries(changes)) {
    write(/** @type {Name} */ (name), value);
  }
  applyTheme();
}

/** @param {Name} name @returns {string | null | undefined} */
function read(name) {
  try {
    return PLACES[name].store().getItem(`litelens.${name}`);
  } catch {
    return kept.get(name);
  }
}

/** @param {Name} name @param {string} value */
function write(name, value) {
  try {
    PLACES[name].store().setItem(`litelens.${name}`, value);
  } catch {
    kept.set(name, value);
  }
}

export function applyTheme() {
  document.documentElement.dataset.theme = settings().theme;
}

/**
 * An endpoint as requests are appended to it, or null when it is none.
 * @param {string} text
 * @returns {string | null}
 */
export function endpointOf(text) {
  const trimmed = text.trim().replace(/\/+$/, "");
  if (trimmed === "") return "";
  const isPlain = /^https?:\/\/[^?#]+$/i.test(trimmed) && URL.canParse(trimmed) && !new URL(trimmed).username;
  return isPlain ? trimmed : null;
}

/** @param {string} endpoint as endpointOf() gives it @returns {string} */
export function originOf(endpoint) {
  return new URL(endpoint || location.origin).origin;
}
