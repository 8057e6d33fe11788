import { readFile, readdir, writeFile } from "node:fs/promises";
import { extname, join } from "node:path";
import { gzipSync } from "node:zlib";

const TEXT = new Set([".html", ".js", ".css", ".svg"]);

/**
 * Vite plugin: writes `name.gz` beside every text file of the bundle, so that the server compresses
 * nothing while it serves. The gzip header carries no time, so equal sources give equal bytes.
 * @returns {import("vite").Plugin}
 */
export function gzipAssets() {
  let outDir = "dist";
  return {
    name: "gzip-assets",
    apply: "build",
    configResolved(config) {
      outDir = join(config.root, config.build.outDir);
    },
    async closeBundle() {
      const entries = await readdir(outDir, { recursive: true, withFileTypes: true });
      for (const entry of entries) {
        if (!entry.isFile() || !TEXT.has(extname(entry.name))) continue;
        const path = join(entry.parentPath, entry.name);
        await writeFile(`${path}.gz`, gzipSync(await readFile(path), { level: 9 }));
      }
    },
  };
}
