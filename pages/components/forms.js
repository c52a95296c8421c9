/** Forms: a field's markup, and submitting with the error beside the field it names. */
import { ApiError, html, raw } from "./core.js";

let serial = 0;

/**
 * A labelled input with room for its error.
 * @param {{name: string, label: string, type?: string, value?: string, hint?: string|object, required?: boolean, autocomplete?: string,
 *   placeholder?: string, maxlength?: number, minlength?: number, rows?: number, options?: [string, string][], inputmode?: string, autofocus?: boolean}} options
 *   `rows` makes a textarea, `options` a select
 */
export function field({ name, label, type = "text", value = "", hint, required = false, autocomplete = "off", placeholder = "", maxlength, minlength, rows, options, autofocus, inputmode }) {
  const id = `f${++serial}-${name}`;
  const common = html`id="${id}" name="${name}" ${raw(required ? "required" : "")} ${raw(autofocus ? "autofocus" : "")} aria-describedby="${id}-e"`;
  const bounds = html`${maxlength && html`maxlength="${maxlength}"`} ${minlength && html`minlength="${minlength}"`} ${inputmode && html`inputmode="${inputmode}"`}`;
  const control = options
    ? html`<select class="select" ${common}>${options.map(([key, text]) => html`<option value="${key}" ${raw(key === value ? "selected" : "")}>${text}</option>`)}</select>`
    : rows
      ? html`<textarea class="textarea" rows="${rows}" placeholder="${placeholder}" ${bounds} ${common}>${value}</textarea>`
      : html`<input class="input" type="${type}" value="${value ?? ""}" placeholder="${placeholder}" autocomplete="${autocomplete}" ${bounds} ${common} />`;
  return html`<div class="field"><label for="${id}">${label}</label>${control}${hint && html`<span class="hint">${hint}</span>`}<span class="error" id="${id}-e" data-error="${name}" role="alert"></span></div>`;
}

/** Where errors that name no field are told. */
export function formError() {
  return html`<div class="notice err" data-form-error role="alert" hidden></div>`;
}

/** Show a refusal in a form: beside its field, or on top. */
export function showError(form, error) {
  const text = error instanceof ApiError ? [error.message, error.hint].filter(Boolean).join(" ") : "Something went wrong in this page. Nothing you typed is lost.";
  if (!(error instanceof ApiError)) console.error(error);
  const named = error.field ? form.querySelector(`[data-error="${CSS.escape(error.field)}"]`) : null;
  if (named) {
    named.textContent = text.replace(new RegExp(`^${error.field}: `), "");
    const input = form.elements.namedItem(error.field);
    if (input instanceof HTMLElement) {
      input.setAttribute("aria-invalid", "true");
      input.focus();
    }
    return;
  }
  const place = form.querySelector("[data-form-error]");
  if (place) {
    place.textContent = text;
    place.hidden = false;
    place.scrollIntoView({ block: "nearest" });
  }
}

export function clearErrors(form) {
  for (const place of form.querySelectorAll("[data-error]")) place.textContent = "";
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  const place = form.querySelector("[data-form-error]");
  if (place) place.hidden = true;
}

/**
 * Submit `form` through `send(values, form)`; one at a time, errors shown in place.
 * @param {HTMLFormElement} form @param {(values: Record<string, string>, form: HTMLFormElement) => Promise<void>} send
 */
export function bindForm(form, send) {
  form.noValidate = true;
  form.addEventListener("input", (event) => {
    event.target.removeAttribute?.("aria-invalid");
    const place = event.target.name && form.querySelector(`[data-error="${CSS.escape(event.target.name)}"]`);
    if (place) place.textContent = "";
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.submitter || form.querySelector("[type=submit]");
    if (button?.getAttribute("aria-busy") === "true") return;
    clearErrors(form);
    const invalid = [...form.elements].find((input) => input.willValidate && !input.checkValidity());
    if (invalid) {
      showError(form, new ApiError(422, { field: invalid.name, message: invalid.validationMessage }));
      return;
    }
    button?.setAttribute("aria-busy", "true");
    try {
      await send(Object.fromEntries(new FormData(form)), form);
    } catch (error) {
      if (error.name !== "AbortError") showError(form, error);
    } finally {
      button?.removeAttribute("aria-busy");
    }
  });
}
