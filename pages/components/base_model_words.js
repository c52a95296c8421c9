/** What administrators read of a base model. */

const FAMILIES = { sd1: "SD 1.x", sd2: "SD 2.x", sdxl: "SDXL", sd3: "SD 3", flux: "Flux", other: "Other" };
export const ROLE_CHOICES = [["USER", "Members"], ["CURATOR", "Curators"], ["ADMIN", "Administrators"]];
export const DTYPE_CHOICES = [["auto", "As device and kind ask for"], ["fp16", "fp16: half, the quickest on most GPUs"], ["bf16", "bf16: half, of wider range"], ["fp32", "fp32: full, twice the memory"]];
const ACTIVE = ["pending", "queued", "running"];

export const familyName = (family) => FAMILIES[family] ?? family;

/** Whether it is on its way, or will be. */
export const isFetching = (one) => ACTIVE.includes(one.fetch?.status);

/** Label of a sampler or schedule. @param {{id: string, label: string}[]} options */
export const optionLabel = (options, id) => options.find((option) => option.id === id)?.label ?? id;

/** Where it came from. */
export function sourceOf(one) {
  if (one.origin === "storage") return `storage: ${one.repo_id}`;
  if (one.origin !== "hub") return one.origin === "found" ? `models folder: ${one.folder}` : one.folder;
  return `hub: ${one.repo_id}${one.file ? `, ${one.file}` : ""}${one.revision ? ` at ${one.revision}` : ""}`;
}

/** Who may choose it; "" for everybody. Administrators always may. */
export function roleWords(roles) {
  if (roles.length === 0) return "";
  const others = roles.filter((role) => role !== "ADMIN" && role !== "SUPERADMIN");
  if (others.length === 0) return "for administrators";
  return `for ${others.map((role) => (ROLE_CHOICES.find(([key]) => key === role)?.[1] ?? role).toLowerCase()).join(" and ")}`;
}
