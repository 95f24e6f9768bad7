plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "sample"
    compileSdk = 35
    defaultConfig {
        applicationId = "org.distilldeploy.sample"
        minSdk = 26   // the least of DJL's tokenizers
        targetSdk = 35
        versionCode = 1
        versionName = "1.0"
        ndk { abiFilters += "arm64-v8a" }
    }
    // A model that is compressed in the package takes time to unpack, and gets no smaller.
    androidResources { noCompress += "onnx" }
    sourceSets["main"].java.srcDirs("src/main/kotlin")
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    kotlinOptions { jvmTarget = "17" }
}

dependencies {
    implementation("com.microsoft.onnxruntime:onnxruntime-android:1.22.0")
    implementation("ai.djl.huggingface:tokenizers:0.33.0")
    implementation("ai.djl.android:core:0.33.0")
    runtimeOnly("ai.djl.android:tokenizer-native:0.33.0")
}
