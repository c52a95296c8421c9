/** What a safetensors file says of itself, read in the browser from its first bytes. The server checks everything again. */
import { formatBytes } from "./core.js";

const MAX_HEADER = 100 * 1024 * 1024;

/**
 * @param {File} file
 * @returns {Promise<{tensors: number, dtypes: string[], name?: string, base?: string, rank?: string, resolution?: string}>}
 * @throws {Error} with a sentence for the person, when the file can't be safetensors
 */
export async function readHeader(file) {
  const broken = (why) => new Error(`${file.name} is not a whole safetensors file: ${why}.`);
  if (file.size < 10) throw broken(`it has ${formatBytes(file.size)}`);
  const length = Number(new DataView(await file.slice(0, 8).arrayBuffer()).getBigUint64(0, true));
  if (length < 2 || length > MAX_HEADER || length + 8 > file.size) throw broken("its header does not fit into it");
  let header;
  try {
    header = JSON.parse(await file.slice(8, 8 + length).text());
  } catch {
    throw broken("its header can't be read");
  }
  const { __metadata__: about = {}, ...tensors } = header;
  const entries = Object.values(tensors).filter((one) => Array.isArray(one?.data_offsets));
  const end = entries.reduce((most, one) => Math.max(most, one.data_offsets[1]), 0);
  if (8 + length + end > file.size) throw broken(`${formatBytes(8 + length + end - file.size)} are missing at its end`);
  return {
    tensors: entries.length,
    dtypes: [...new Set(entries.map((one) => String(one.dtype)))],
    name: about["modelspec.title"] || about.ss_output_name,
    base: about["modelspec.architecture"] || about.ss_base_model_version,
    rank: about.ss_network_dim,
    resolution: about["modelspec.resolution"] || about.ss_resolution,
  };
}
