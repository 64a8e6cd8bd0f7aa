"""An APK without an Android SDK: framework and dexer from Maven Central, aapt, zipalign and apksigner as Debian packs them."""
