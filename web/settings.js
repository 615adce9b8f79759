/** Settings. The browser forgets the endpoint, the key and the model when the tab is closed. */

/** @typedef {"auto" | "light" | "dark"} Theme */
/** @typedef {"shrink" | "upload"} LargePhotos how to send photos that are too large for a request */
/** @typedef {{endpoint: string, key: string, model: string, theme: Theme, largePhotos: LargePhotos}} Settings */

/** @typedef {keyof Settings} Name */

/** @type {Record<Name, {store: () => Storage, fallback: string}>} */
const PLACES = {
  endpoint: { store: () => sessionStorage, fallback: "" },
  key: { store: () => sessionStorage, fallback: "" },
  model: { store: () => sessionStorage, fallback: "" },
  theme: { store: () => localStorage, fallback: "auto" },
  largePhotos: { store: () => localStorage, fallback: "shrink" },
};

/** Values in memory, if the browser does not store data of sites. @type {Map<string, string>} */
const kept = new Map();

/**
 * Return the settings of this tab. An empty endpoint is the page's own origin, an empty model is the default one.
 * @returns {Settings}
 */
export function settings() {
  return /** @type {Settings} */ (
    Object.fromEntries(
      Object.entries(PLACES).map(([name, { fallback }]) => [name, read(/** @type {Name} */ (name)) ?? fallback]),
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
 * Normalize an endpoint, so that paths can be appended; null if it is invalid.
 * @param {string} text
 * @returns {string | null}
 */
export function endpointOf(text) {
  const trimmed = text.trim().replace(/\/+$/, "");
  if (trimmed === "") return "";
  const isPlain = /^https?:\/\/[^?#]+$/i.test(trimmed) && URL.canParse(trimmed) && !new URL(trimmed).username;
  return isPlain ? trimmed : null;
}

/** @param {string} endpoint normalized by endpointOf() @returns {string} */
export function originOf(endpoint) {
  return new URL(endpoint || location.origin).origin;
}
