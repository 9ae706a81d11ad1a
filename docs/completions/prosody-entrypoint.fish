# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_prosody_entrypoint_global_optspecs
    string join \n h/help V/version
end

function __fish_prosody_entrypoint_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_prosody_entrypoint_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_prosody_entrypoint_using_subcommand
    set -l cmd (__fish_prosody_entrypoint_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_needs_command" -s V -l version -d 'Print version'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_needs_command" -f -a "render" -d 'Write Prosody\'s configuration, or show it, and start nothing'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_needs_command" -f -a "validate" -d 'Find what a start would refuse or warn about, and what users would miss'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_needs_command" -f -a "settings" -d 'List all settings'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_needs_command" -f -a "modules" -d 'List the server\'s modules, from where each is and why it is there, or search the community\'s'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_needs_command" -f -a "certificates" -d 'Show the certificate of each host and port, and why it is not another'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_needs_command" -f -a "dns" -d 'Show the DNS records that this configuration needs, as a zone file'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_needs_command" -f -a "shards" -d 'Show which shard serves which host, or change the number of shards'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_needs_command" -f -a "backup" -d 'Save the data of all hosts, whatever storage it is in, beside a running server or without one'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_needs_command" -f -a "restore" -d 'Bring a backup into an empty, stopped server, of either version and with any storage'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_needs_command" -f -a "migrate" -d 'Copy all data of a stopped server into another storage, and compare the copy'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_needs_command" -f -a "export" -d 'Save what the server keeps for one account, in the format of a backup'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_needs_command" -f -a "repair" -d 'Repair lists that a crash has cut off, and rows that a database has twice'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_needs_command" -f -a "healthcheck" -d 'Succeed when the server answers an XMPP stream for its first host, or is alive or ready'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_needs_command" -f -a "init" -d 'Run any program under PID 1 alone, with tini\'s command line: `init -h` lists its options'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand render" -l output -d 'Write into this directory instead of the runtime directory, or show what would be written there' -r -F
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand render" -l dry-run -d 'Show every file, with a placeholder for each secret, and write nothing'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand render" -l diff -d 'Show what differs from what is in force, and write nothing; ends with 1 where something does'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand render" -l json -d 'Show the plan as JSON, with a placeholder for each secret, and write nothing'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand render" -s h -l help -d 'Print help'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand validate" -l json -d 'Show everything as JSON'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand validate" -l dns -d 'Check DNS too; ends with 1 where a record is missing'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand validate" -s h -l help -d 'Print help'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand settings" -l format -d 'How to show them' -r -f -a "table\t'Columns for a terminal'
markdown\t'The reference, as in the documentation'
json-schema\t'A JSON schema of the environment'
env\t'A file of variables to fill in, for `docker run --env-file`'"
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand settings" -l effective -d 'Show the value of each setting that is in force, and where it came from'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand settings" -l features -d 'Show what each feature of PROSODY_FEATURES stands for: modules and options'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand settings" -l json -d 'Show the features as JSON'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand settings" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand modules" -l search -d 'List the community\'s modules with WORD in their name or summary instead; ends with 1 where there is none' -r
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand modules" -l json -d 'Show them as JSON, with all that is known'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand modules" -s h -l help -d 'Print help'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand certificates" -l warn-days -d 'End with 1 where a host has none, or one that ends within so many days' -r
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand certificates" -l json -d 'Show them as JSON, with all that is known'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand certificates" -s h -l help -d 'Print help'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand dns" -l json -d 'Show them as JSON'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand dns" -l check -d 'Compare with what resolves, by Prosody\'s own `check dns`, and show its report; ends with 1 where something is missing'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand dns" -s h -l help -d 'Print help'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand shards" -l set -d 'Change the number of shards to N, which they take up by themselves' -r
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand shards" -l format -d 'How to show them' -r -f -a "table\t'Columns for a terminal'
haproxy-map\t'A line for each name, `chat.example shard-1`, as HAProxy reads it'
json\t'The count, and each host with its shard'"
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand shards" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand backup" -s h -l help -d 'Print help'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand restore" -l host -d 'Restore the data of the host OLD as that of NEW; addresses inside the data stay as they are' -r
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand restore" -s h -l help -d 'Print help'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand migrate" -l to -d 'The new storage: `internal` (files), `sqlite`, or the URL of a database, as in PROSODY_DATABASE_URL' -r
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand migrate" -l to-file -d 'A file that contains the new storage, so that its password is in no list of processes' -r -F
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand migrate" -s h -l help -d 'Print help'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand export" -s h -l help -d 'Print help'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand repair" -s h -l help -d 'Print help'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand healthcheck" -l live -d 'Succeed unless the server\'s process is gone or stopped: also while it starts, and while it hangs'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand healthcheck" -l ready -d 'Succeed when it also has all of its hosts; the first time, also all of their modules, and its databases answer'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand healthcheck" -l json -d 'Show the result as JSON; unless with --live, also what is not as it is configured'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand healthcheck" -s h -l help -d 'Print help'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand help; and not __fish_seen_subcommand_from render validate settings modules certificates dns shards backup restore migrate export repair healthcheck init help" -f -a "render" -d 'Write Prosody\'s configuration, or show it, and start nothing'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand help; and not __fish_seen_subcommand_from render validate settings modules certificates dns shards backup restore migrate export repair healthcheck init help" -f -a "validate" -d 'Find what a start would refuse or warn about, and what users would miss'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand help; and not __fish_seen_subcommand_from render validate settings modules certificates dns shards backup restore migrate export repair healthcheck init help" -f -a "settings" -d 'List all settings'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand help; and not __fish_seen_subcommand_from render validate settings modules certificates dns shards backup restore migrate export repair healthcheck init help" -f -a "modules" -d 'List the server\'s modules, from where each is and why it is there, or search the community\'s'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand help; and not __fish_seen_subcommand_from render validate settings modules certificates dns shards backup restore migrate export repair healthcheck init help" -f -a "certificates" -d 'Show the certificate of each host and port, and why it is not another'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand help; and not __fish_seen_subcommand_from render validate settings modules certificates dns shards backup restore migrate export repair healthcheck init help" -f -a "dns" -d 'Show the DNS records that this configuration needs, as a zone file'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand help; and not __fish_seen_subcommand_from render validate settings modules certificates dns shards backup restore migrate export repair healthcheck init help" -f -a "shards" -d 'Show which shard serves which host, or change the number of shards'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand help; and not __fish_seen_subcommand_from render validate settings modules certificates dns shards backup restore migrate export repair healthcheck init help" -f -a "backup" -d 'Save the data of all hosts, whatever storage it is in, beside a running server or without one'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand help; and not __fish_seen_subcommand_from render validate settings modules certificates dns shards backup restore migrate export repair healthcheck init help" -f -a "restore" -d 'Bring a backup into an empty, stopped server, of either version and with any storage'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand help; and not __fish_seen_subcommand_from render validate settings modules certificates dns shards backup restore migrate export repair healthcheck init help" -f -a "migrate" -d 'Copy all data of a stopped server into another storage, and compare the copy'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand help; and not __fish_seen_subcommand_from render validate settings modules certificates dns shards backup restore migrate export repair healthcheck init help" -f -a "export" -d 'Save what the server keeps for one account, in the format of a backup'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand help; and not __fish_seen_subcommand_from render validate settings modules certificates dns shards backup restore migrate export repair healthcheck init help" -f -a "repair" -d 'Repair lists that a crash has cut off, and rows that a database has twice'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand help; and not __fish_seen_subcommand_from render validate settings modules certificates dns shards backup restore migrate export repair healthcheck init help" -f -a "healthcheck" -d 'Succeed when the server answers an XMPP stream for its first host, or is alive or ready'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand help; and not __fish_seen_subcommand_from render validate settings modules certificates dns shards backup restore migrate export repair healthcheck init help" -f -a "init" -d 'Run any program under PID 1 alone, with tini\'s command line: `init -h` lists its options'
complete -c prosody-entrypoint -n "__fish_prosody_entrypoint_using_subcommand help; and not __fish_seen_subcommand_from render validate settings modules certificates dns shards backup restore migrate export repair healthcheck init help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
