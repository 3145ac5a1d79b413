# What becomes of each setting of Nix 2.18 to 2.34 in the jobs' daemon: its configuration belongs to the host's owner, and
# each line of it may be one that a job gains by. A new setting needs a class here; a test knows all names.
{
  # Ours, whatever nix.conf says. From `nix`, the package, and what daemon.nix knows.
  forced =
    {
      nix,
      limits,
      keepHook,
      buildDir,
    }:
    {
      # Another store, the host's own daemon above all, would see root ask.
      store = "local";
      # On a kernel that has no namespaces for us a build fails, instead of going without a sandbox.
      sandbox = "true";
      sandbox-fallback = "false";
      filter-syscalls = "true";
      allow-new-privileges = "false";
      require-drop-supplementary-groups = "true";
      # Without a group, builds are root's.
      build-users-group = "nixbld";
      build-dir = buildDir;
      # A host that takes unsigned paths takes them from whoever asks, and what is at a path is then the job's word.
      require-sigs = "true";
      # With a key of the owner's, whoever trusts it would take what strangers build.
      secret-key-files = "";
      allowed-users = "root nixprov-filter";
      trusted-users = "root";
      netrc-file = "/dev/null";
      access-tokens = "";
      impure-env = "";
      keep-failed = "false";
      # The job's own log has it. Here no collector would ever take it away, and who else may read it is hard to say.
      keep-build-log = "false";
      json-log-path = "";
      max-build-log-size = toString (limits.buildLogMiB * 1024 * 1024);
      timeout = toString limits.buildTimeout;
      max-silent-time = toString limits.buildSilence;
      post-build-hook = "${keepHook}";
      diff-hook = "";
      run-diff-hook = "false";
      # Another machine's Nix, which knows the owner's key and nothing of this page.
      builders = "";
      build-hook = "${nix}/bin/nix __build-remote";
      external-builders = "[]";
      # It makes groups below its own, and those are read-only here.
      use-cgroups = "false";
    };

  # Some cannot be set, or emptied, without the feature that they belong to; it is off again before the daemon starts.
  features = {
    external-builders = "external-builders";
    impure-env = "configurable-impure-env";
    use-cgroups = "cgroups";
  };

  # Forced ones that came after 2.18. An older Nix would warn.
  since = {
    build-dir = "2.22";
    external-builders = "2.32";
    impure-env = "2.19";
    json-log-path = "2.30";
  };

  # Forced by daemon.nix with what is only known on the host.
  measured = [
    "experimental-features"
    "max-free"
    "min-free"
  ];

  # Features that no build of a job has: a daemon inside the build would be one without our filter.
  withheld = [
    "cgroups"
    "configurable-impure-env"
    "external-builders"
    "recursive-nix"
  ];

  # The owner's word counts for jobs too, and why.
  inherited = {
    allow-symlinked-store = "where the store is, is the host's affair, and both daemons must agree";
    allowed-impure-host-deps = "files of the host that the owner names; read on macOS only";
    auto-allocate-uids = "other users for builds, chosen by Nix and as far from the host's";
    auto-optimise-store = "one store, one habit";
    cores = "what a build may use is the slice's limit";
    download-speed = "the owner's line";
    extra-platforms = "what binfmt runs on this host";
    fallback = "building what a cache does not give";
    gc-reserved-space = "one store, one habit";
    hashed-mirrors = "what they give is checked by its hash";
    http-connections = "the owner's line";
    id-count = "the range of auto-allocate-uids";
    ignored-acls = "the file system's";
    keep-derivations = "what the collector keeps is the owner's rule";
    keep-env-derivations = "what the collector keeps is the owner's rule";
    keep-outputs = "what the collector keeps is the owner's rule";
    max-jobs = "the filter writes a job's own number";
    max-substitution-jobs = "the owner's line";
    plugin-files = "the host's own code; without it Nix may not know a store that it uses";
    pre-build-hook = "names what a build of a host needs mounted, a graphics card say; the owner's program, run as root";
    sandbox-build-dir = "a name inside the sandbox";
    sandbox-dev-shm-size = "memory is the slice's limit";
    sandbox-paths = "folders that the owner gives to every build";
    ssl-cert-file = "whom the host trusts for downloads";
    start-id = "the range of auto-allocate-uids";
    substitute = "caches of the host are caches of its jobs";
    substituters = "caches of the host are caches of its jobs";
    system = "what this host builds for";
    system-features = "what this host can do for builds, kvm say; recursive-nix is withheld as a feature";
    trusted-public-keys = "caches of the host are caches of its jobs";
    trusted-substituters = "caches that a job may name";
    use-sqlite-wal = "one database, one mode";
  };

  # Nothing for a job: how fast, how often, how much is said; and what only evaluation and commands read, which are the
  # client's.
  harmless = [
    "abort-on-warn"
    "accept-flake-config"
    "allow-dirty"
    "allow-dirty-locks"
    "allow-import-from-derivation"
    "allow-unsafe-native-code-during-evaluation"
    "allowed-uris"
    "always-allow-substitutes"
    "bash-prompt"
    "bash-prompt-prefix"
    "bash-prompt-suffix"
    "build-poll-interval"
    "builders-use-substitutes"
    "commit-lock-file-summary"
    "commit-lockfile-summary"
    "compress-build-log"
    "connect-timeout"
    "darwin-log-sandbox-violations"
    "debugger-on-trace"
    "debugger-on-warn"
    "download-attempts"
    "download-buffer-size"
    "eval-attrset-update-layer-rhs-threshold"
    "eval-cache"
    "eval-profile-file"
    "eval-profiler"
    "eval-profiler-frequency"
    "eval-system"
    "flake-registry"
    "fsync-metadata"
    "fsync-store-paths"
    "http2"
    "ignore-try"
    "impersonate-linux-26"
    "keep-going"
    "lint-absolute-path-literals"
    "lint-short-path-literals"
    "lint-url-literals"
    "log-lines"
    "max-call-depth"
    "min-free-check-interval"
    "nar-buffer-size"
    "narinfo-cache-meta-ttl"
    "narinfo-cache-negative-ttl"
    "narinfo-cache-positive-ttl"
    "nix-path"
    "nix-shell-always-looks-for-shell-nix"
    "nix-shell-shebang-arguments-relative-to-script"
    "preallocate-contents"
    "print-missing"
    "pure-eval"
    "restrict-eval"
    "show-trace"
    "stalled-download-timeout"
    "sync-before-registering"
    "tarball-ttl"
    "trace-function-calls"
    "trace-import-from-derivation"
    "trace-verbose"
    "trust-tarballs-from-git-forges"
    "upgrade-nix-store-path-url"
    "use-case-hack"
    "use-registries"
    "use-xdg-base-directories"
    "user-agent-suffix"
    "warn-dirty"
    "warn-large-path-threshold"
    "warn-short-path-literals"
  ];
}
