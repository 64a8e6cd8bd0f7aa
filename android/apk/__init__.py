"""An APK without an Android SDK: framework and dexer from Maven Central, the other tools as Debian packs them."""
