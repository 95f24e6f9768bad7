// What App.tsx and files.ts call of React, React Native, Expo and onnxruntime, so that they are checked alone.
declare module "react" {
  export function useState<T>(initial: T): [T, (value: T) => void];
  export function useEffect(effect: () => void, dependencies: unknown[]): void;
}

declare module "react/jsx-runtime" {
  export namespace JSX {
    interface ElementChildrenAttribute {
      children: {};
    }
  }
  export const jsx: unknown;
  export const jsxs: unknown;
}

declare module "react-native" {
  type Style = Record<string, string | number>;
  export const StyleSheet: { create<T extends Record<string, Style>>(styles: T): T };
  export function ScrollView(props: { contentContainerStyle?: Style; children?: unknown }): any;
  export function Text(props: { style?: Style; children?: unknown }): any;
  export function TextInput(props: {
    style?: Style;
    multiline?: boolean;
    placeholder?: string;
    onChangeText?: (text: string) => void;
  }): any;
  export function Button(props: { title: string; disabled?: boolean; onPress?: () => void }): any;
}

declare module "expo-asset" {
  export class Asset {
    static fromModule(module: number): Asset;
    localUri: string | null;
    downloadAsync(): Promise<this>;
  }
}

declare module "onnxruntime-react-native" {
  export * from "onnxruntime-common";
}

declare function require(path: string): any;
