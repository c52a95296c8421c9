/** Everything the interface is made of. Modules define their custom elements; the frame comes last and shows them. */
import "./explorer.js";
import "./shell.js";
