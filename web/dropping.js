/** Reads dropped files and folders. */

/**
 * @param {DataTransfer} dropped read synchronously, because browsers empty it right after the event
 * @returns {Promise<File[]>} all files, those of folders sorted by name, without hidden ones
 */
export async function filesIn(dropped) {
  const entries = [...dropped.items].map((item) => item.webkitGetAsEntry());
  if (!entries.some((entry) => entry?.isDirectory)) return [...dropped.files];
  return flat(entries.filter((entry) => entry !== null));
}

/** @param {FileSystemEntry} entry @returns {Promise<File[]>} */
async function filesBelow(entry) {
  if (entry.name.startsWith(".")) return [];
  if (entry.isFile) {
    const file = /** @type {FileSystemFileEntry} */ (entry);
    // A file that cannot be read becomes an empty one, which is reported when it is sent.
    return [await new Promise((resolve) => file.file(resolve, () => resolve(new File([], entry.name))))];
  }
  const entries = await entriesOf(/** @type {FileSystemDirectoryEntry} */ (entry));
  entries.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  return flat(entries);
}

/** @param {FileSystemEntry[]} entries @returns {Promise<File[]>} */
async function flat(entries) {
  return (await Promise.all(entries.map(filesBelow))).flat();
}

/** @param {FileSystemDirectoryEntry} folder @returns {Promise<FileSystemEntry[]>} */
async function entriesOf(folder) {
  const reader = folder.createReader();
  const entries = [];
  // readEntries returns up to a hundred entries per call, and none at the end.
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (some.length === 0) return entries;
    entries.push(...some);
  }
}
