-- Options for the whole server, and defaults for every host.

-- Where it runs
data_path = "{data}"
pidfile = "{run}/server/prosody.pid"
admin_socket = "{run}/server/prosody.sock"

-- Network
c2s_direct_tls_ports = { 5223 }

-- HTTP
http_interfaces = { "*", "::" }
https_interfaces = { "*", "::" }
http_max_content_size = 524288

-- Encryption, and how other servers prove who they are
s2s_secure_auth = true

-- Logging and statistics
log = { info = "*console" }

-- Certificates
certificates = "{output}/certificates"
https_certificate = "{data}/self-signed/chat.example.crt"
c2s_direct_tls_certificate = "{data}/self-signed/chat.example.crt"
s2s_direct_tls_certificate = "{data}/self-signed/chat.example.crt"

-- Other options
site_apps = {
	{
		download = {
			buttons = {
				{
					target = "_blank";
					text = "Google Play";
					url = "https://play.google.com/store/apps/details?id=eu.siacs.conversations";
				};
				{
					target = "_blank";
					text = "F-Droid";
					url = "https://f-droid.org/packages/eu.siacs.conversations/";
				};
			};
		};
		image = "assets/logos/conversations.svg";
		link = "https://play.google.com/store/apps/details?id=eu.siacs.conversations";
		magic_link_format = "{app.link!}&referrer={invite.uri}";
		name = "Conversations";
		platforms = { "Android" };
		supports_preauth_uri = true;
		text = "A client for Android that is easy to use, with encryption, calls and group chats.";
	};
	{
		download = {
			buttons = {
				{
					target = "_blank";
					text = "Google Play";
					url = "https://play.google.com/store/apps/details?id=org.yaxim.androidclient";
				};
			};
		};
		image = "assets/logos/yaxim.svg";
		link = "https://play.google.com/store/apps/details?id=org.yaxim.androidclient";
		magic_link_format = "{app.link!}&referrer={invite.uri}";
		name = "yaxim";
		platforms = { "Android" };
		supports_preauth_uri = true;
		text = "A lean client for Android, also for older devices.";
	};
	{
		download = {
			buttons = {
				{
					target = "_blank";
					text = "App Store";
					url = "https://apps.apple.com/app/id317711500";
				};
				{
					target = "_blank";
					text = "Mac App Store";
					url = "https://apps.apple.com/app/id1637078500";
				};
			};
		};
		image = "assets/logos/monal.svg";
		link = "https://monal-im.org/";
		name = "Monal";
		platforms = { "iOS", "macOS" };
		supports_preauth_uri = true;
		text = "An open-source client for iPhone, iPad and Mac.";
	};
	{
		download = {
			buttons = {
				{
					target = "_blank";
					text = "App Store";
					url = "https://apps.apple.com/app/id1153516838";
				};
			};
		};
		image = "assets/logos/siskin-im.png";
		link = "https://apps.apple.com/app/id1153516838";
		name = "Siskin IM";
		platforms = { "iOS" };
		supports_preauth_uri = true;
		text = "A lightweight client for iPhone and iPad.";
	};
	{
		download = {
			buttons = {
				{
					target = "_blank";
					text = "Mac App Store";
					url = "https://apps.apple.com/app/id1445349494";
				};
			};
		};
		image = "assets/logos/beagle-im.png";
		link = "https://apps.apple.com/app/id1445349494";
		name = "Beagle IM";
		platforms = { "macOS" };
		setup = {
			text = "Launch Beagle IM, and select 'Yes' to add a new account. Click the '+' button under the empty account list and then enter your credentials.";
		};
		text = "A lightweight client for macOS.";
	};
	{
		download = {
			buttons = {
				{
					target = "_blank";
					text = "Download Dino for Linux";
					url = "https://dino.im/#download";
				};
			};
		};
		image = "assets/logos/dino.svg";
		link = "https://dino.im/";
		name = "Dino";
		platforms = { "Linux" };
		text = "An open-source client for the Linux desktop, with a focus on privacy.";
	};
	{
		download = {
			buttons = {
				{
					target = "_blank";
					text = "Download Gajim";
					url = "https://gajim.org/download/";
				};
			};
		};
		image = "assets/logos/gajim.svg";
		link = "https://gajim.org/";
		name = "Gajim";
		platforms = { "Windows", "Linux" };
		text = "A client with many features for Windows and Linux.";
	};
}
