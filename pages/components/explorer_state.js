// What an explorer shows, as the address bar holds it. The address is the state: shareable, and Back works.
export const SORTS = {
  models: [["newest", "Newest"], ["downloads", "Most downloaded"], ["title", "Title A-Z"], ["oldest", "Oldest"]],
  images: [["newest", "Newest"], ["title", "Title A-Z"], ["oldest", "Oldest"]],
  galleries: [["newest", "Newest"], ["title", "Title A-Z"], ["oldest", "Oldest"]],
};
export const RELEVANCE = ["relevance", "Best match"];
const LISTED = ["q", "type", "base_model", "owner", "sort"];

/** @param {string} search `location.search` @returns {{q, tags, type, base_model, owner, sort, id, image}} "" where absent */
export function readState(search) {
  const params = new URLSearchParams(search);
  const state = { tags: [...new Set(params.getAll("tag").filter(Boolean))], id: params.get("id") ?? "", image: params.get("image") ?? "" };
  for (const name of LISTED) state[name] = params.get(name) ?? "";
  return state;
}

/** The query string of a state, "" for the plain list. */
export function writeState(state) {
  const params = new URLSearchParams();
  for (const name of LISTED) if (state[name]) params.set(name, state[name]);
  for (const tag of state.tags ?? []) params.append("tag", tag);
  if (state.id) params.set("id", state.id);
  if (state.image) params.set("image", state.image);
  const text = params.toString();
  return text ? `?${text}` : "";
}

/** Whether two states list the same things (what is open on top does not matter). */
export function sameList(a, b) {
  return writeState({ ...a, id: "", image: "" }) === writeState({ ...b, id: "", image: "" });
}

/** What narrows the list, for chips: [{name, value, label}]. */
export function filtersOf(state, { ownerName, typeLabel }) {
  return [
    state.type && { name: "type", value: state.type, label: typeLabel(state.type) },
    state.base_model && { name: "base_model", value: state.base_model, label: state.base_model },
    state.owner && { name: "owner", value: state.owner, label: state.owner === "me" ? "Mine" : `by ${ownerName(state.owner)}` },
    ...state.tags.map((tag) => ({ name: "tag", value: tag, label: `#${tag}` })),
  ].filter(Boolean);
}

export function without(state, name, value) {
  if (name === "tag") return { ...state, tags: state.tags.filter((tag) => tag !== value) };
  return { ...state, [name]: "" };
}

export function withTag(state, tag) {
  return state.tags.includes(tag) ? state : { ...state, tags: [...state.tags, tag] };
}

/** Query of the REST list for a state. */
export function listQuery(state) {
  return {
    q: state.q,
    tag: state.tags,
    type: state.type,
    base_model: state.base_model,
    owner: state.owner,
    sort: state.sort || (state.q ? "relevance" : "newest"),
  };
}
