const { getDefaultConfig } = require("expo/metro-config");

const config = getDefaultConfig(__dirname);
// The model is a file to copy into the app, not code to read.
config.resolver.assetExts.push("onnx");
module.exports = config;
