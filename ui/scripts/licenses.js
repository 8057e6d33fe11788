import { readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

// What ends up in the bundle; tools that only build or test it do not.
const SHIPPED = ["svelte", "marked", "dompurify", "idb", "@fontsource-variable/hanken-grotesk"];

/**
 * Vite plugin: writes `licenses.txt`, the notices that the licences of shipped packages ask for.
 * @returns {import("vite").Plugin}
 */
export function writeLicenses() {
  let config;
  return {
    name: "write-licenses",
    apply: "build",
    configResolved(resolved) {
      config = resolved;
    },
    async closeBundle() {
      const notices = await Promise.all(SHIPPED.map((name) => notice(join(config.root, "node_modules", name))));
      await writeFile(join(config.root, config.build.outDir, "licenses.txt"), notices.join("\n\n\n"));
    },
  };
}

/** @param {string} folder of a package @returns {Promise<string>} its name, version and licence */
async function notice(folder) {
  const { name, version } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const file = (await readdir(folder)).find((entry) => /^licen[cs]e(\.\w+)?$/i.test(entry));
  if (!file) throw new Error(`${name} has no licence file: see which terms it is under`);
  return `${name} ${version}\n\n${(await readFile(join(folder, file), "utf8")).trim()}\n`;
}
