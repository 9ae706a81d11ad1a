# Starts the server once for each module of the collection and prints each start's output, between a line with
# the module's name and a line with the status. mod_what_is_loaded stops the server once it is up.
#
# usage: start-each.sh STEP SHARED MODULE…
#
# Of modules that are not named, only every STEP-th is started. The status of others is "skipped". SHARED says whether
# modules share their code: true, false, or `turns` for every other start.
step=$1
shared=$2
shift 2
number=0
started=0

export PROSODY_DOMAIN=chat.example
for folder in /opt/prosody-modules-available/mod_*; do
	module=${folder##*/mod_}
	number=$((number + 1))
	echo "=== module $module"
	case " $* " in
	*" $module "*) ;;
	*) [ $((number % step)) = 0 ] || { echo "=== status skipped" && continue; } ;;
	esac
	started=$((started + 1))
	case $shared in
	turns) share=$([ $((started % 2)) = 0 ] && echo true || echo false) ;;
	*) share=$shared ;;
	esac
	enabled=what_is_loaded
	case $module in
	auth_*) setting=PROSODY_AUTHENTICATION=${module#auth_} ;;
	storage_*) setting=PROSODY_STORAGE_VCARD=${module#storage_} ;;
	*) setting='' enabled="$enabled $module" ;;
	esac
	find /var/lib/prosody -mindepth 1 -delete
	env PROSODY_SHARE_MODULE_CODE="$share" PROSODY_MODULES_ENABLED="$enabled" ${setting:+"$setting"} \
		timeout --kill-after 5 30 prosody-entrypoint prosody -F 2>&1
	echo "=== status $?"
done
