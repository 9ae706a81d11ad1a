component_secret = os.getenv("PROSODY_DB_PASSWORD")
