/** Everything the interface is made of. Modules define their custom elements; the frame comes last and shows them. */
import "./auth.js";
import "./explorer.js";
import "./home.js";
import "./shell.js";
