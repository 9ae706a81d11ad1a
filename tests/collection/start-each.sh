# Starts the server once for each module of the collection and prints what each start says, between a
# line with the module's name and one with the status. mod_what_is_loaded ends the server once it is up.

# Stands in for what the entrypoint does not link by itself yet.
mkdir /tmp/modules
ln -s /opt/prosody-modules-available/*.lib.lua /tmp/modules
for folder in /opt/prosody-modules-available/mod_*; do
	name=${folder##*/mod_}
	if [ -e "$folder/$name/mod_$name.lua" ]; then folder=$folder/$name; fi
	ln -s "$folder" "/tmp/modules/mod_$name"
done
export PROSODY_PLUGIN_PATHS='/etc/prosody/modules /tmp/modules'

export PROSODY_DOMAIN=chat.example
for folder in /opt/prosody-modules-available/mod_*; do
	module=${folder##*/mod_}
	enabled=what_is_loaded
	case $module in
	auth_*) setting=PROSODY_AUTHENTICATION=${module#auth_} ;;
	storage_*) setting=PROSODY_STORAGE_VCARD=${module#storage_} ;;
	# Stands in for the rooms' modules being put where they belong.
	muc_* | http_muc_log | vcard_muc) setting=PROSODY_MUC_MODULES=$module ;;
	*) setting='' enabled="$enabled $module" ;;
	esac
	find /var/lib/prosody -mindepth 1 -delete
	echo "=== module $module"
	env PROSODY_MODULES_ENABLED="$enabled" ${setting:+"$setting"} \
		timeout --kill-after 5 30 prosody-entrypoint prosody -F 2>&1
	echo "=== status $?"
done
