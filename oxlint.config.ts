import { defineConfig } from 'oxlint'
import { layeringRules } from './scripts/layering.ts'

export default defineConfig({
  plugins: ['eslint', 'typescript', 'unicorn', 'oxc', 'import', 'promise', 'node'],
  options: { typeAware: true, denyWarnings: true, reportUnusedDisableDirectives: 'error' },
  ignorePatterns: ['dist/**', 'coverage/**'],
  categories: { correctness: 'error', suspicious: 'error', perf: 'error' },
  rules: {
    // Types: nothing unchecked comes in.
    'typescript/no-explicit-any': 'error',
    'typescript/no-unsafe-argument': 'error',
    'typescript/no-unsafe-assignment': 'error',
    'typescript/no-unsafe-call': 'error',
    'typescript/no-unsafe-member-access': 'error',
    'typescript/no-unsafe-return': 'error',
    'typescript/no-unsafe-function-type': 'error',
    'typescript/no-non-null-assertion': 'error',
    'typescript/no-deprecated': 'error',
    'typescript/ban-ts-comment': 'error',
    'typescript/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
    'typescript/switch-exhaustiveness-check': 'error',
    // Narrowing a row or a parsed JSON needs `as`; no-unsafe-* still forbids to do it silently.
    'typescript/no-unsafe-type-assertion': 'off',
    // tsc's noImplicitReturns says it better: it knows when a switch has no way out.
    'typescript/consistent-return': 'off',

    // Promises: every one is awaited, returned or visibly let go with `void`.
    'typescript/no-floating-promises': 'error',
    'typescript/no-misused-promises': 'error',
    'typescript/only-throw-error': 'error',
    'typescript/prefer-promise-reject-errors': 'error',
    'typescript/use-unknown-in-catch-callback-variable': 'error',
    'typescript/return-await': ['error', 'in-try-catch'],
    // Order matters with Postgres: a loop that awaits is the common case, not the mistake.
    'eslint/no-await-in-loop': 'off',
    // Callbacks of event emitters end without a value.
    'promise/always-return': 'off',

    // Modules.
    'import/no-cycle': ['error', { ignoreTypes: false }],
    'import/no-default-export': 'error',
    'import/no-duplicates': 'error',
    'import/first': 'error',
    'import/no-mutable-exports': 'error',
    'import/no-named-as-default-member': 'off',
    'import/no-unassigned-import': 'error',
    'unicorn/prefer-node-protocol': 'error',
    'node/no-path-concat': 'error',

    // Reading.
    'eslint/eqeqeq': 'error',
    'eslint/no-console': 'error',
    'eslint/no-param-reassign': 'error',
    'eslint/no-var': 'error',
    'eslint/prefer-const': 'error',
    'eslint/no-warning-comments': 'error',
    'unicorn/no-process-exit': 'error',
    'unicorn/filename-case': ['error', { case: 'kebabCase' }],
    'unicorn/throw-new-error': 'error',
    'unicorn/no-abusive-eslint-disable': 'error',
    // `_` marks what a signature demands and a body does not use.
    'eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_', caughtErrors: 'all' }],
    'eslint/no-underscore-dangle': 'off',
  },
  overrides: [
    {
      files: ['src/**/*.ts'],
      rules: {
        'eslint/max-lines': ['error', { max: 400, skipBlankLines: true, skipComments: true }],
        'eslint/max-lines-per-function': ['error', { max: 80, skipBlankLines: true, skipComments: true }],
        'eslint/complexity': ['error', { max: 15 }],
        'eslint/max-params': ['error', { max: 4 }],
      },
    },
    ...layeringRules(),
    {
      files: ['src/cli/**/*.ts', 'bench/**/*.ts', 'scripts/**/*.ts', 'examples/**/*.ts', 'test/support/**/*.ts'],
      rules: { 'eslint/no-console': 'off', 'unicorn/no-process-exit': 'off' },
    },
    {
      files: ['**/*.config.ts', 'test/**/global-setup.ts'],
      rules: { 'import/no-default-export': 'off' },
    },
    {
      files: ['test/**/*.ts'],
      plugins: ['eslint', 'typescript', 'unicorn', 'oxc', 'import', 'promise', 'node', 'vitest'],
      rules: {
        'vitest/expect-expect': [
          'error',
          { assertFunctionNames: ['expect', 'expect*', 'assert*', 'fc.assert', 'eventually*'] },
        ],
        // A helper belongs beside the tests that it serves.
        'unicorn/consistent-function-scoping': 'off',
        'vitest/no-focused-tests': 'error',
        'vitest/no-identical-title': 'error',
        // An expectation may be awaited later than it is made; no-floating-promises finds the forgotten ones.
        'vitest/valid-expect': 'off',
        'typescript/no-non-null-assertion': 'off',
      },
    },
  ],
})
