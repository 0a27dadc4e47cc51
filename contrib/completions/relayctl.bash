# bash completion for relayctl(8)
#
# Install as /usr/share/bash-completion/completions/relayctl. Ids, relayhosts and users are asked of the running daemon and the
# configuration; when there is none, nothing is offered.

_relayctl_values() {
	case $1 in
	--state) echo ready inflight deferred held ;;
	--class) echo default transactional bulk ;;
	--reason) echo greylist throttle auth mailbox policy connect dns tls other ;;
	--sort) echo age next attempts size ;;
	--level) echo error warn info debug ;;
	--outcome) echo delivered deferred failed expired deleted ;;
	--event) echo accepted rejected delivered deferred failed expired operator alert reloaded ;;
	--type) echo rsa ed25519 ;;
	--relayhost) echo mx; _relayctl_relayhosts ;;
	--age | --timeout) echo 30s 10m 1h 1d ;;
	--user) _relayctl_users ;;
	esac
}

_relayctl_ids() {
	"${COMP_WORDS[0]}" queue --limit 200 2>/dev/null | grep -oE '^[0-9A-Z]{13}'
}

_relayctl_relayhosts() {
	"${COMP_WORDS[0]}" status 2>/dev/null | awk '$1 == "relayhost" { print $2 }'
}

_relayctl_users() {
	"${COMP_WORDS[0]}" user list 2>/dev/null | awk '{ print $1 }'
}

_relayctl_options() {
	local filter="--state --domain --recipient --sender --user --class --reason --age --relayhost"

	case $1 in
	health) echo --mail ;;
	queue) echo "$filter --sort --limit --after --all" ;;
	flush | hold | release | delete | bounce) echo "$filter --all --yes --dry-run" ;;
	tail) echo --event --level --id --user --sender --recipient --domain --relayhost --outcome --count ;;
	send) echo --from --to ;;
	sendmail) printf "%s\n" -t -i -f -bs -bp ;;
	route) echo --from --user ;;
	user) echo --password-file --options ;;
	dkim) echo --type --out ;;
	doctor) echo --to --blocklist --strict ;;
	drain) echo --timeout ;;
	esac
}

_relayctl_words() {
	case $1 in
	show | flush | hold | release | delete | bounce) _relayctl_ids ;;
	pause | resume) _relayctl_relayhosts ;;
	user) echo add remove list check; _relayctl_users ;;
	dkim) echo keygen show check ;;
	journal) echo dump ;;
	esac
}

_relayctl() {
	local commands="status health top queue show flush hold release delete bounce tail route pause resume send sendmail config
		doctor user dkim reload drain verify journal version"
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command= i

	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-c | -s) ((i++)) ;;
		-*) ;;
		*) command=${COMP_WORDS[i]}; break ;;
		esac
	done
	case $previous in
	-c | -s | --out | --password-file) COMPREPLY=($(compgen -f -- "$current")); return ;;
	esac
	if [[ -z $command ]]; then
		COMPREPLY=($(compgen -W "$commands -c -s --json --help" -- "$current"))
	elif [[ $previous == --* && -n $(_relayctl_values "$previous") ]]; then
		COMPREPLY=($(compgen -W "$(_relayctl_values "$previous")" -- "$current"))
	elif [[ $current == -* ]]; then
		COMPREPLY=($(compgen -W "$(_relayctl_options "$command") --json" -- "$current"))
	else
		COMPREPLY=($(compgen -W "$(_relayctl_words "$command")" -- "$current"))
		[[ $command == send || $command == verify || $command == journal ]] && COMPREPLY+=($(compgen -f -- "$current"))
	fi
	return 0
}

complete -F _relayctl relayctl
