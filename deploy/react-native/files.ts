/** The files of the bundle, as Metro packs them into the app. */
import { Asset } from "expo-asset";

const DOCUMENTS: Record<string, object> = {
  "manifest.json": require("./bundle/manifest.json"),
  "tokenizer.json": require("./bundle/tokenizer.json"),
  "tokenizer_config.json": require("./bundle/tokenizer_config.json"),
};

/** Returns a document of the bundle. */
export async function read(path: string): Promise<object> {
  const document = DOCUMENTS[path];
  if (!document) throw new Error(`${path}: is not packed into the app; see files.ts`);
  return document;
}

/** Returns the path of the model on this device. */
export async function locate(): Promise<string> {
  const model = await Asset.fromModule(require("./bundle/model.onnx")).downloadAsync();
  if (!model.localUri) {
    throw new Error("the model is not on this device: npm run assemble BUNDLE, and build anew");
  }
  return model.localUri;
}
