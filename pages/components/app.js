/** Everything the interface is made of. Modules define their custom elements; the frame comes last and shows them. */
import "./account.js";
import "./admin.js";
import "./auth.js";
import "./explorer.js";
import "./generator.js";
import "./history.js";
import "./home.js";
import "./upload.js";
import "./shell.js";
